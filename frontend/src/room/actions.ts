/** What people do in a room, as requests to the server. */

import { sendEdit, sendRequest } from "./current-session.ts";
import { clampToPicture, distance, roundPlace } from "./geometry.ts";
import type { DragEnd } from "./geometry.ts";
import { makeId } from "./make-id.ts";
import type { AppliedOperation, ModelChoice, Operation, Setting, XY } from "./protocol.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";
import type { Branch } from "./timeline.ts";

/** How far a copy of a drag is from it, in shares of the picture's longest side. */
const COPY_OFFSET = 0.06;

/** Returns false, and says why, if the target is on the handle. */
export function addDrag(handle: XY, target: XY): boolean {
  const picture = store.picture.value;
  if (picture === null) return false;
  const from = roundPlace(clampToPicture(picture, handle));
  const to = roundPlace(clampToPicture(picture, target));
  if (distance(from, to) < 1) {
    store.toast("error", texts.errors.targetOnHandle);
    return false;
  }
  const id = `d${makeId()}`;
  edit({ type: "add_drag", id, handle: from, target: to });
  store.selected.value = { id, end: "target" };
  store.announcement.value = texts.announcements.pointAdded(store.drags.value.length);
  return true;
}

export function moveDrag(id: string, end: DragEnd, at: XY): void {
  const picture = store.picture.value;
  if (picture === null) return;
  const place = roundPlace(clampToPicture(picture, at));
  edit(end === "handle" ? { type: "move_drag", id, handle: place } : { type: "move_drag", id, target: place });
}

export function removeDrag(id: string): void {
  if (store.selected.value?.id === id) store.selected.value = null;
  edit({ type: "remove_drag", id });
  store.announcement.value = texts.announcements.pointRemoved;
}

/** Adds a copy of a drag beside it, towards the middle of the picture. */
export function duplicateDrag(id: string): void {
  const picture = store.picture.value;
  const drag = store.drags.value.find((one) => one.id === id);
  if (picture === null || drag === undefined || !store.editable.value) return;
  const offset = COPY_OFFSET * Math.max(picture.width, picture.height);
  const inwards = (place: number, length: number) => (place > length / 2 ? -offset : offset);
  const dx = inwards((drag.handle[0] + drag.target[0]) / 2, picture.width);
  const dy = inwards((drag.handle[1] + drag.target[1]) / 2, picture.height);
  const copied = ([x, y]: XY): XY => [x + dx, y + dy];
  addDrag(copied(drag.handle), copied(drag.target));
}

/** Holds a place still. */
export function addPin(at: XY): void {
  const id = `n${makeId()}`;
  movePin(id, at);
  store.announcement.value = texts.announcements.pinAdded;
}

/** Moves a pin, or adds it. */
export function movePin(id: string, at: XY): void {
  const picture = store.picture.value;
  if (picture === null) return;
  store.selected.value = null;
  store.selectedPin.value = id;
  edit({ type: "set_pin", id, at: roundPlace(clampToPicture(picture, at)) });
}

export function removePin(id: string): void {
  if (store.selectedPin.value === id) store.selectedPin.value = null;
  edit({ type: "set_pin", id, at: null });
  store.announcement.value = texts.announcements.pinRemoved;
}

export function addStroke(
  mode: "paint" | "erase",
  radius: number,
  points: readonly XY[],
  softness = store.brushSoftness.value,
): void {
  if (points.length === 0) return;
  const id = `s${makeId()}`;
  edit({ type: "add_stroke", stroke: { type: "stroke", id, mode, radius, softness, points: points.map(roundPlace) } });
}

/** Paints or erases what the points enclose (even-odd). */
export function addFill(mode: "paint" | "erase", points: readonly XY[]): void {
  if (points.length < 3) return;
  const id = `s${makeId()}`;
  const stroke = {
    type: "stroke",
    id,
    mode,
    radius: 1,
    softness: 0,
    points: points.map(roundPlace),
    fill: true,
  } as const;
  edit({ type: "add_stroke", stroke });
}

/** Moves the border of the editable area outwards by so many pixels, or inwards if negative. */
export function growMask(pixels: number): void {
  edit({ type: "grow_mask", id: `g${makeId()}`, pixels });
}

export function invertMask(): void {
  edit({ type: "invert_mask", id: `i${makeId()}` });
}

export function clearMask(): void {
  edit({ type: "clear_mask" });
}

export function setPrompt(prompt: string): void {
  if (prompt !== store.document.value?.prompt) edit({ type: "set_prompt", prompt });
}

export function setSettings(settings: Readonly<Record<string, Setting | null>>): void {
  edit({ type: "set_settings", settings });
}

export function setTitle(title: string): void {
  if (title !== store.document.value?.title) edit({ type: "set_title", title });
}

export function setModel(model: ModelChoice): void {
  edit({ type: "set_model", model });
}

export function canRun(): boolean {
  return canChange() && !store.running.value && !store.starting.value && store.drags.value.length > 0;
}

export function startRun(): void {
  if (canRun()) sendRequest({ type: "run", op_id: makeId() });
}

export function stopRun(): void {
  if (store.running.value && !store.stopping.value) sendRequest({ type: "stop", op_id: makeId() });
}

export function canReset(): boolean {
  const document = store.document.value;
  return canChange() && !store.running.value && !!document && (document.run !== null || document.result !== null);
}

export function reset(): void {
  if (canReset()) sendRequest({ type: "reset", op_id: makeId() });
}

/** Whether there is a result that can become the picture that is edited. */
export function canEditFurther(): boolean {
  return canChange() && !store.running.value && !store.starting.value && !!store.document.value?.result;
}

export function editFurther(): void {
  if (canEditFurther()) sendRequest({ type: "edit_further", op_id: makeId() });
}

/** Whether another picture can take the place of this one. */
export function canReplacePicture(): boolean {
  return canChange() && !store.running.value && !store.starting.value;
}

export function canUndo(): boolean {
  return canChange() && store.room.value.history.undo !== null;
}

export function undo(): void {
  if (canUndo()) sendRequest({ type: "undo", op_id: makeId() });
}

export function canRedo(): boolean {
  return canChange() && store.room.value.history.redo !== null;
}

export function redo(): void {
  if (canRedo()) sendRequest({ type: "redo", op_id: makeId() });
}

export function canSeek(): boolean {
  return canChange();
}

/** Goes to a stored iteration; a run continues from there. */
export function seek(moment: number): void {
  if (canSeek()) sendRequest({ type: "seek", op_id: makeId(), moment });
}

export function nameBranch(branch: Branch, name: string): void {
  if (name.trim() !== branch.name) markBranch(branch, { name: name.trim(), removed: false });
}

/** Leaves a branch out of the list; undo brings it back. */
export function removeBranch(branch: Branch): void {
  markBranch(branch, { name: branch.name, removed: true });
}

function markBranch({ marked }: Branch, { name, removed }: { readonly name: string; readonly removed: boolean }): void {
  edit({ type: "mark_branch", moment: marked, mark: name === "" && !removed ? null : { name, removed } });
}

/** The quick preview shows a re-aimed drag again until the next run has rendered it. */
export function markUnrendered(op: AppliedOperation): void {
  if (op.type === "add_drag" || (op.type === "move_drag" && op.target)) {
    store.unrenderedDrags.value = new Set(store.unrenderedDrags.value).add(op.id);
  }
}

function edit(op: Operation): void {
  markUnrendered(op);
  sendEdit(op);
}

function canChange(): boolean {
  return store.connected.value && store.editable.value;
}
