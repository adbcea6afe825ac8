/** Placing points and painting with the keyboard, by a crosshair that the arrow keys move. */

import { addDrag, addPin, addStroke } from "../room/actions.ts";
import { clampToPicture, keyStep } from "../room/geometry.ts";
import type { View } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { texts as roomTexts } from "../room/texts.ts";
import { nudgeTo } from "./nudge.ts";
import { isPressed } from "./pointer.ts";
import { selectRegion } from "./select-region.ts";
import { texts } from "./texts.ts";

/** Shows the crosshair, or places something at it if it is already shown. */
export function showCrosshairOrPlace(): void {
  const picture = store.picture.value;
  if (picture === null || !store.editable.value) return;
  if (placeAtCrosshair()) return;
  store.selected.value = null;
  store.hovered.value = null;
  const middle: XY = [(picture.width - 1) / 2, (picture.height - 1) / 2];
  moveCrosshair(store.pendingHandle.value ?? store.pointer.value ?? middle);
}

/** Places what the tool places. Returns whether there is a crosshair. */
export function placeAtCrosshair(): boolean {
  const at = store.crosshair.value;
  if (at === null) return false;
  const tool = store.tool.value;
  if (tool === "paint" || tool === "erase") {
    if (store.brushShape.value === "select") selectRegion(tool, at);
    else addStroke(tool, store.brushRadius.value, [at]);
  } else if (tool === "pin") {
    addPin(at);
  } else if (store.pendingHandle.value === null) {
    store.pendingHandle.value = at;
    store.announcement.value = roomTexts.announcements.handlePlaced;
  } else if (addDrag(store.pendingHandle.value, at)) {
    store.pendingHandle.value = null;
    store.crosshair.value = null;
  }
  return true;
}

/** Moves the crosshair, or the selected end of a drag. Returns whether there is either. */
export function moveByKey(view: View, [dx, dy]: XY, tenfold: boolean): boolean {
  const picture = store.picture.value;
  if (picture === null) return false;
  const step = keyStep(view) * (tenfold ? 10 : 1);
  const moved = ([x, y]: XY): XY => clampToPicture(picture, [x + dx * step, y + dy * step]);
  if (store.crosshair.value !== null) {
    moveCrosshair(moved(store.crosshair.value));
    return true;
  }
  const selection = store.selected.value;
  const drag = store.drags.value.find(({ id }) => id === selection?.id);
  if (selection === null || drag === undefined || isPressed() || !store.editable.value) return false;
  nudgeTo(selection, moved(drag[selection.end]));
  return true;
}

function moveCrosshair(to: XY): void {
  store.crosshair.value = to;
  store.announcement.value = texts.crosshairAt(...to);
}
