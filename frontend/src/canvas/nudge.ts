/** Arrow keys move the selected end of a drag; several presses in a row are sent as one edit. */

import { moveDrag } from "../room/actions.ts";
import type { XY } from "../room/protocol.ts";
import * as store from "../room/store.ts";

/** Milliseconds after the last arrow key until the move is sent. */
const SEND_DELAY = 350;

let timer: ReturnType<typeof setTimeout> | undefined;

/** Moves an end on this page and sends it a little later. */
export function nudgeTo(selection: store.Selection, at: XY): void {
  const gesture = store.gesture.value;
  if (gesture?.kind === "move" && (gesture.id !== selection.id || gesture.end !== selection.end)) finishNudge();
  store.gesture.value = { kind: "move", ...selection, at };
  clearTimeout(timer);
  timer = setTimeout(finishNudge, SEND_DELAY);
}

/** Sends a nudge that is still waiting. */
export function finishNudge(): void {
  if (timer === undefined) return;
  cancelNudge();
  const gesture = store.gesture.value;
  store.gesture.value = null;
  if (gesture?.kind === "move") moveDrag(gesture.id, gesture.end, gesture.at);
}

export function cancelNudge(): void {
  clearTimeout(timer);
  timer = undefined;
}
