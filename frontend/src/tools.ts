/**
 * What pointer and keys do on the picture, as one small machine over the store: press, move, release, cancel. It knows
 * places, not events, so that the mouse, a finger, a pen and the specs drive it alike.
 */

import {
  clamp,
  clampToPicture,
  distance,
  extend,
  hit,
  isInside,
  keyStep,
  panBy,
  pinch,
  toCanvas,
  toPicture,
  zoomAt,
} from "./geometry.ts";
import type { Place, View } from "./geometry.ts";
import { MAX_STROKE_POINTS } from "./protocol.ts";
import type { XY } from "./protocol.ts";
import * as session from "./session.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

export type PointerKind = "mouse" | "touch";

/** How near a press has to be, in CSS pixels: a fingertip is wide. */
const REACH: Readonly<Record<PointerKind, number>> = { mouse: 14, touch: 26 };
/** A press that moves further than this, in CSS pixels, is a drag and no click. */
const SLOP: Readonly<Record<PointerKind, number>> = { mouse: 5, touch: 10 };
/** Milliseconds between re-aims sent while a target is being moved during a run. */
const RE_AIM = 120;
/** Milliseconds after the last arrow key until a nudge is sent. */
const NUDGED = 350;

/** How far a copy lies from what it copies, each way, as a part of the picture's longest side. */
const COPIED = 0.06;

/** Brush radius as a part of the picture's longest side. */
export const BRUSH = { least: 0.01, most: 0.25, first: 0.06 } as const;

interface Press {
  readonly kind: PointerKind;
  /** Where it began, on the canvas. */
  readonly at: XY;
  /** From the pointer to the place taken hold of, so that it does not jump. */
  readonly offset: XY;
  moved: boolean;
  /** Where the picture lay as it began. */
  readonly view: View;
  /** Whether the handle had been there before this press. */
  readonly second: boolean;
}

let pressing: Press | null = null;
let aimed = 0;
let nudging: ReturnType<typeof setTimeout> | undefined;

/** Every place that can be taken hold of, on the canvas; handles above targets. */
export function places(view: View): readonly Place[] {
  const ends = (end: "target" | "handle"): Place[] =>
    store.drags.value.map((drag) => ({ id: drag.id, end, at: toCanvas(view, drag[end]) }));
  return [...ends("target"), ...ends("handle")];
}

/** `hand` is the tool that presses. */
export function press(view: View, at: XY, kind: PointerKind, hand: store.Tool = store.inHand.value): void {
  const picture = store.picture.value;
  if (picture === null) return;
  settleNudge();
  store.crosshair.value = null;
  const here = toPicture(view, at);
  const begun = { kind, at, offset: [0, 0], moved: false, second: false, view } as const;
  if (hand === "hand") {
    pressing = { ...begun };
    store.gesture.value = { kind: "pan" };
    return;
  }
  if (hand !== "points") {
    pressing = { ...begun };
    store.gesture.value = { kind: "stroke", mode: hand, radius: store.brush.value, points: [here] };
    return;
  }
  const half = store.half.value;
  const found = hit(places(view), at, REACH[kind]);
  if (found !== null && half === null) {
    pressing = { ...begun, offset: [found.at[0] - at[0], found.at[1] - at[1]] };
    store.selected.value = { id: found.id, end: found.end };
    return;
  }
  if (half !== null) {
    const again = distance(toCanvas(view, half), at) <= REACH[kind];
    pressing = { ...begun, second: !again };
    store.gesture.value = { kind: "pull", handle: half, target: again ? null : clampToPicture(picture, here) };
    return;
  }
  if (!isInside(picture, here)) {
    store.selected.value = null;
    return;
  }
  pressing = { ...begun };
  store.selected.value = null;
  store.gesture.value = { kind: "pull", handle: clampToPicture(picture, here), target: null };
}

export function move(view: View, at: XY): void {
  const picture = store.picture.value;
  const pressed = pressing;
  if (picture === null || pressed === null) return;
  if (!pressed.moved && distance(pressed.at, at) <= SLOP[pressed.kind]) return;
  pressed.moved = true;
  if (store.gesture.value?.kind === "pan") {
    const by: XY = [at[0] - pressed.at[0], at[1] - pressed.at[1]];
    store.camera.value = panBy(pressed.view, by, picture, store.canvasSize.value);
    return;
  }
  const here = toPicture(view, [at[0] + pressed.offset[0], at[1] + pressed.offset[1]]);
  const doing = store.gesture.value;
  if (doing?.kind === "stroke") {
    const points = extend(doing.points, here, Math.max(0.75 / view.scale, doing.radius / 12));
    if (points.length >= MAX_STROKE_POINTS) {
      session.addStroke(doing.mode, doing.radius, points);
      store.gesture.value = { ...doing, points: [here] };
    } else store.gesture.value = { ...doing, points };
    return;
  }
  const place = clampToPicture(picture, here);
  if (doing?.kind === "pull") {
    store.gesture.value = { ...doing, target: place };
    return;
  }
  const taken = store.selected.value;
  if (taken === null) return;
  store.gesture.value = { kind: "move", ...taken, at: place };
  // A target can be led about while the run follows; a handle is re-grabbed once, where it is let go.
  if (taken.end === "target" && store.running.value && performance.now() - aimed > RE_AIM) {
    aimed = performance.now();
    session.moveDrag(taken.id, "target", place);
  }
}

export function release(): void {
  const pressed = pressing;
  const doing = store.gesture.value;
  pressing = null;
  store.gesture.value = null;
  if (pressed === null || doing === null) return;
  switch (doing.kind) {
    case "stroke":
      session.addStroke(doing.mode, doing.radius, doing.points);
      break;
    case "pan":
      break;
    case "move":
      session.moveDrag(doing.id, doing.end, doing.at);
      break;
    case "pull":
      if (doing.target !== null && (pressed.moved || pressed.second)) {
        store.half.value = session.addDrag(doing.handle, doing.target) ? null : doing.handle;
      } else {
        store.half.value = doing.handle;
        store.announcement.value = texts.announce.handlePut;
      }
      break;
  }
}

/** Gives up what is half done. Returns whether there was anything. */
export function cancel(): boolean {
  const busy =
    pressing !== null || store.gesture.value !== null || store.half.value !== null || store.crosshair.value !== null;
  pressing = null;
  clearTimeout(nudging);
  nudging = undefined;
  store.gesture.value = null;
  store.half.value = null;
  store.crosshair.value = null;
  return busy;
}

export function isPressed(): boolean {
  return pressing !== null;
}

/** Drops what the pointer is in the middle of, as when a second finger comes down; a handle that waits stays. */
export function letGo(): void {
  pressing = null;
  store.gesture.value = null;
}

// Looking closer ----------------------------------------------------------------------------------------------------

/** Zooms by `factor` with what is at the canvas point `at` staying there; without a point, the middle of the canvas does. */
export function zoom(factor: number, at?: XY): void {
  const picture = store.picture.value;
  const canvas = store.canvasSize.value;
  if (picture === null) return;
  store.camera.value = zoomAt(store.view.value, at ?? [canvas.width / 2, canvas.height / 2], factor, picture, canvas);
}

/** To one CSS pixel a pixel of the picture. */
export function zoomToActualSize(): void {
  zoom(1 / store.view.value.scale);
}

/** The whole picture, however large the canvas is or becomes. */
export function zoomToFit(): void {
  store.camera.value = null;
}

export function pan(by: XY): void {
  const picture = store.picture.value;
  if (picture !== null) store.camera.value = panBy(store.view.value, by, picture, store.canvasSize.value);
}

/** Two fingers moved from `before` to `now`, on the canvas. */
export function pinchBy(before: readonly [XY, XY], now: readonly [XY, XY]): void {
  const picture = store.picture.value;
  if (picture !== null) store.camera.value = pinch(store.view.value, before, now, picture, store.canvasSize.value);
}

export function choose(tool: store.Tool): void {
  cancel();
  store.tool.value = tool;
}

/** Makes the brush larger (`steps` > 0) or smaller. */
export function resizeBrush(steps: number): void {
  const picture = store.picture.value;
  if (picture === null) return;
  const longest = Math.max(picture.width, picture.height);
  store.brush.value = clamp(store.brush.value * 1.2 ** steps, BRUSH.least * longest, BRUSH.most * longest);
}

// From the keyboard -------------------------------------------------------------------------------------------------

/** Takes the crosshair out, or uses it where it is. */
export function pointByKey(): void {
  const picture = store.picture.value;
  if (picture === null || !store.editable.value) return;
  if (store.crosshair.value !== null) {
    place();
    return;
  }
  store.selected.value = null;
  store.hovered.value = null;
  store.crosshair.value = store.half.value ??
    store.pointer.value ?? [(picture.width - 1) / 2, (picture.height - 1) / 2];
  say();
}

/** Puts down at the crosshair what the tool puts down. Returns whether there is a crosshair. */
export function place(): boolean {
  const at = store.crosshair.value;
  if (at === null) return false;
  const tool = store.tool.value;
  if (tool === "paint" || tool === "erase") {
    session.addStroke(tool, store.brush.value, [at]);
  } else if (store.half.value === null) {
    store.half.value = at;
    store.announcement.value = texts.announce.handlePut;
  } else if (session.addDrag(store.half.value, at)) {
    store.half.value = null;
    store.crosshair.value = null;
  }
  return true;
}

/** Puts a copy of a drag beside it: by the width of a handle, inwards. */
export function duplicate(id: string): void {
  const picture = store.picture.value;
  const drag = store.drags.value.find((one) => one.id === id);
  if (picture === null || drag === undefined || !store.editable.value) return;
  const inwards = (place: number, length: number) =>
    (place > length / 2 ? -1 : 1) * COPIED * Math.max(picture.width, picture.height);
  const by: XY = [
    inwards((drag.handle[0] + drag.target[0]) / 2, picture.width),
    inwards((drag.handle[1] + drag.target[1]) / 2, picture.height),
  ];
  const moved = ([x, y]: XY): XY => [x + by[0], y + by[1]];
  session.addDrag(moved(drag.handle), moved(drag.target));
}

/** Moves the crosshair, or the selected end. Returns whether there was something to move. */
export function nudge(view: View, [dx, dy]: XY, tenfold: boolean): boolean {
  const picture = store.picture.value;
  if (picture === null) return false;
  const step = keyStep(view) * (tenfold ? 10 : 1);
  const moved = ([x, y]: XY): XY => clampToPicture(picture, [x + dx * step, y + dy * step]);
  if (store.crosshair.value !== null) {
    store.crosshair.value = moved(store.crosshair.value);
    say();
    return true;
  }
  const taken = store.selected.value;
  const drag = store.drags.value.find((one) => one.id === taken?.id);
  if (taken === null || drag === undefined || pressing !== null || !store.editable.value) return false;
  const doing = store.gesture.value;
  if (doing?.kind === "move" && (doing.id !== taken.id || doing.end !== taken.end)) settleNudge();
  store.gesture.value = { kind: "move", ...taken, at: moved(drag[taken.end]) };
  clearTimeout(nudging);
  nudging = setTimeout(settleNudge, NUDGED);
  return true;
}

/** Sends a nudge that is still waiting for more of its kind. */
export function settleNudge(): void {
  if (nudging === undefined) return;
  clearTimeout(nudging);
  nudging = undefined;
  const doing = store.gesture.value;
  store.gesture.value = null;
  if (doing?.kind === "move") session.moveDrag(doing.id, doing.end, doing.at);
}

function say(): void {
  if (store.crosshair.value !== null) store.announcement.value = texts.announce.crosshair(...store.crosshair.value);
}
