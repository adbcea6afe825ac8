/**
 * What a pointer does on the picture: press, move, release. It knows places rather than events, so that mouse, touch,
 * pen and the specs drive it alike.
 */

import { addDrag, addFill, addStroke, moveDrag, movePin } from "../room/actions.ts";
import { clampToPicture, distance, extendStroke, hitTest, isInside, toCanvas, toPicture } from "../room/geometry.ts";
import type { HitTarget, Size, View } from "../room/geometry.ts";
import { makeId } from "../room/make-id.ts";
import { MAX_STROKE_POINTS } from "../room/protocol.ts";
import type { XY } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { texts } from "../room/texts.ts";
import { pan } from "./camera.ts";
import { cancelNudge, finishNudge } from "./nudge.ts";
import { selectRegion } from "./select-region.ts";

export type PointerKind = "mouse" | "touch";

/** How close a press has to be, in CSS pixels; a fingertip is wide. */
const HIT_RADIUS: Readonly<Record<PointerKind, number>> = { mouse: 14, touch: 26 };
/** A press that moves further than this, in CSS pixels, is a drag and not a click. */
const CLICK_TOLERANCE: Readonly<Record<PointerKind, number>> = { mouse: 5, touch: 10 };
/** Milliseconds between the moves sent while a target is dragged during a run. */
const RE_AIM_INTERVAL = 120;

type StrokeGesture = Extract<store.Gesture, { readonly kind: "stroke" }>;

interface Press {
  readonly kind: PointerKind;
  /** Where it began, on the canvas. */
  readonly at: XY;
  /** From the pointer to the end that was hit, so that it doesn't jump. */
  readonly offset: XY;
  /** Where the picture lay at the time. */
  readonly view: View;
  /** Whether this press places the target of a pending handle. */
  readonly placesTarget: boolean;
  moved: boolean;
}

let current: Press | null = null;
let lastReAim = 0;

/**
 * The end that a press at `at` would move. A pair that a run has brought together counts as its target, wherever it is
 * pressed: to pull it is to go on with it.
 */
export function hitEnd(view: View, at: XY, kind: PointerKind): HitTarget | null {
  const radius = HIT_RADIUS[kind];
  const found = hitTest(hitTargets(view), at, radius);
  const drag = found?.end === "handle" ? store.drags.value.find(({ id }) => id === found.id) : undefined;
  if (drag === undefined || store.document.value?.drags[drag.id]?.tracked == null) return found;
  const target = toCanvas(view, drag.target);
  const together = distance(toCanvas(view, drag.handle), target) <= radius;
  return together ? { id: drag.id, end: "target", at: target } : found;
}

/** Both ends of all drags, on the canvas, handles above targets. */
function hitTargets(view: View): readonly HitTarget[] {
  const ends = (end: "target" | "handle"): HitTarget[] =>
    store.drags.value.map((drag) => ({ id: drag.id, end, at: toCanvas(view, drag[end]) }));
  return [...ends("target"), ...ends("handle")];
}

export function isPressed(): boolean {
  return current !== null;
}

export function press(view: View, at: XY, kind: PointerKind, tool: store.Tool = store.activeTool.value): void {
  const picture = store.picture.value;
  if (picture === null) return;
  finishNudge();
  store.crosshair.value = null;
  const begun = { kind, at, offset: [0, 0], view, placesTarget: false, moved: false } as const;
  switch (tool) {
    case "hand":
      current = { ...begun };
      store.gesture.value = { kind: "pan" };
      break;
    case "paint":
    case "erase":
      current = { ...begun };
      store.gesture.value = {
        kind: "stroke",
        mode: tool,
        radius: store.brushRadius.value,
        points: [toPicture(view, at)],
        fill: store.brushShape.value !== "brush",
      };
      break;
    case "pin":
      pressPin(begun, picture);
      break;
    case "points":
      pressPoint(begun, picture);
      break;
  }
}

/** Hits an end, places the target of a pending handle, or begins a new drag. */
function pressPoint(begun: Press, picture: Size): void {
  const { view, at, kind } = begun;
  const pending = store.pendingHandle.value;
  const place = toPicture(view, at);
  if (pending !== null) {
    const onHandle = distance(toCanvas(view, pending), at) <= HIT_RADIUS[kind];
    current = { ...begun, placesTarget: !onHandle };
    const target = onHandle ? null : clampToPicture(picture, place);
    store.gesture.value = { kind: "create", handle: pending, target };
    return;
  }
  const found = hitEnd(view, at, kind);
  if (found !== null) {
    current = { ...begun, offset: [found.at[0] - at[0], found.at[1] - at[1]] };
    store.selectedPin.value = null;
    store.selected.value = { id: found.id, end: found.end };
    return;
  }
  if (hitPin(view, at, kind) !== null) {
    pressPin(begun, picture);
    return;
  }
  store.selected.value = null;
  store.selectedPin.value = null;
  if (!isInside(picture, place)) return;
  current = { ...begun };
  store.gesture.value = { kind: "create", handle: clampToPicture(picture, place), target: null };
}

/** Takes hold of a pin, or places a new one. */
function pressPin(begun: Press, picture: Size): void {
  const { view, at, kind } = begun;
  const found = hitPin(view, at, kind);
  const place = toPicture(view, at);
  if (found === null && !isInside(picture, place)) return;
  current = { ...begun };
  store.selected.value = null;
  store.selectedPin.value = found?.id ?? null;
  store.gesture.value = { kind: "pin", id: found?.id ?? `n${makeId()}`, at: found?.at ?? place };
}

function hitPin(view: View, at: XY, kind: PointerKind): store.ShownPin | null {
  return store.pins.value.findLast((pin) => distance(toCanvas(view, pin.at), at) <= HIT_RADIUS[kind]) ?? null;
}

export function move(view: View, at: XY): void {
  const picture = store.picture.value;
  const pressed = current;
  if (picture === null || pressed === null) return;
  if (!pressed.moved && distance(pressed.at, at) <= CLICK_TOLERANCE[pressed.kind]) return;
  pressed.moved = true;
  const place = toPicture(view, [at[0] + pressed.offset[0], at[1] + pressed.offset[1]]);
  const gesture = store.gesture.value;
  switch (gesture?.kind) {
    case "pan":
      pan([at[0] - pressed.at[0], at[1] - pressed.at[1]], pressed.view);
      break;
    case "stroke":
      continueStroke(gesture, place, view);
      break;
    case "create":
      store.gesture.value = { ...gesture, target: clampToPicture(picture, place) };
      break;
    case "pin":
      store.gesture.value = { ...gesture, at: clampToPicture(picture, place) };
      break;
    case "move":
    case undefined:
      moveSelected(clampToPicture(picture, place));
      break;
  }
}

function continueStroke(gesture: StrokeGesture, place: XY, view: View): void {
  const [start = place] = gesture.points;
  if (store.brushShape.value === "select") return;
  if (store.brushShape.value === "rectangle") {
    store.gesture.value = { ...gesture, points: [start, [place[0], start[1]], place, [start[0], place[1]]] };
    return;
  }
  const points = extendStroke(gesture.points, place, Math.max(0.75 / view.scale, gesture.radius / 12));
  // The end of a lasso that is too long cannot be a lasso of its own.
  if (points.length < MAX_STROKE_POINTS || gesture.fill) {
    if (points.length > MAX_STROKE_POINTS) return;
    store.gesture.value = { ...gesture, points };
    return;
  }
  addStroke(gesture.mode, gesture.radius, points);
  store.gesture.value = { ...gesture, points: [place] };
}

function moveSelected(at: XY): void {
  const selection = store.selected.value;
  if (selection === null) return;
  store.gesture.value = { kind: "move", ...selection, at };
  // A run follows its target while that is being dragged; a handle is sent once, on release.
  if (selection.end === "target" && store.running.value && performance.now() - lastReAim > RE_AIM_INTERVAL) {
    lastReAim = performance.now();
    moveDrag(selection.id, "target", at);
  }
}

export function release(): void {
  const pressed = current;
  const gesture = store.gesture.value;
  dropGesture();
  if (pressed === null || gesture === null) return;
  switch (gesture.kind) {
    case "pan":
      break;
    case "stroke":
      addGesture(gesture);
      break;
    case "pin":
      movePin(gesture.id, gesture.at);
      break;
    case "move":
      moveDrag(gesture.id, gesture.end, gesture.at);
      break;
    case "create":
      if (gesture.target !== null && (pressed.moved || pressed.placesTarget)) {
        store.pendingHandle.value = addDrag(gesture.handle, gesture.target) ? null : gesture.handle;
      } else {
        store.pendingHandle.value = gesture.handle;
        store.announcement.value = texts.announcements.handlePlaced;
      }
      break;
  }
}

function addGesture({ mode, radius, points }: StrokeGesture): void {
  const [place] = points;
  if (store.brushShape.value === "brush") addStroke(mode, radius, points);
  else if (store.brushShape.value !== "select") addFill(mode, points);
  else if (place !== undefined) selectRegion(mode, place);
}

/** Drops what the pointer is doing, as when a second finger comes down. A pending handle stays. */
export function dropGesture(): void {
  current = null;
  store.gesture.value = null;
}

/** Cancels everything unfinished. Returns whether there was anything. */
export function cancel(): boolean {
  const unfinished = [store.gesture.value, store.pendingHandle.value, store.crosshair.value, current];
  dropGesture();
  cancelNudge();
  store.pendingHandle.value = null;
  store.crosshair.value = null;
  return unfinished.some((one) => one !== null);
}

export function chooseTool(tool: store.Tool): void {
  cancel();
  store.tool.value = tool;
}

/** Paints or erases with another shape; paints if neither was chosen. */
export function chooseShape(shape: store.BrushShape): void {
  chooseTool(store.tool.value === "erase" ? "erase" : "paint");
  store.brushShape.value = shape;
}
