import { momentPicture } from "../room/pictures.ts";
import * as store from "../room/store.ts";

let wanted: number | undefined;

/** Shows a moment on this page's canvas, without moving the room there. */
export function lookAt(id: number | undefined): void {
  wanted = id;
  if (id === undefined) return;
  momentPicture(id).then(
    (bitmap) => {
      if (wanted === id) store.scrubbed.value = { id, bitmap };
    },
    // The timeline has been thinned out meanwhile; the next one the server sends lacks this moment.
    () => undefined,
  );
}
