import { momentPicture } from "../room/pictures.ts";
import * as store from "../room/store.ts";

let wanted: number | undefined;

/** Shows a moment on this page's canvas, without moving the room there. */
export async function lookAt(id: number | undefined): Promise<void> {
  wanted = id;
  if (id === undefined) return;
  try {
    const bitmap = await momentPicture(id);
    if (wanted === id) store.scrubbed.value = { id, bitmap };
  } catch {
    // The timeline has been thinned out meanwhile; the next one the server sends lacks this moment.
  }
}
