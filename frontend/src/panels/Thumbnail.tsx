import { useEffect, useRef } from "preact/hooks";
import type { Square } from "../room/moved-square.ts";
import { momentPicture } from "../room/pictures.ts";
import * as store from "../room/store.ts";

/** Side of a thumbnail's canvas, in its own pixels. */
const SIDE = 88;

/** The square of a moment's picture in which things move. */
export function Thumbnail({ id }: { readonly id: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const square = store.movedPlace.value;
  useEffect(() => {
    let unmounted = false;
    momentPicture(id).then(
      (bitmap) => {
        if (!unmounted && canvas.current !== null) draw(canvas.current, bitmap, square);
      },
      () => undefined,
    );
    return () => {
      unmounted = true;
    };
  }, [id, square]);
  return <canvas ref={canvas} class="thumbnail" data-place={square.join(" ")} />;
}

/** `square` is in shares of the picture's width and height. */
function draw(canvas: HTMLCanvasElement, bitmap: ImageBitmap, [x, y, width, height]: Square): void {
  canvas.width = canvas.height = SIDE;
  const from = [x * bitmap.width, y * bitmap.height, width * bitmap.width, height * bitmap.height] as const;
  canvas.getContext("2d")?.drawImage(bitmap, ...from, 0, 0, SIDE, SIDE);
}
