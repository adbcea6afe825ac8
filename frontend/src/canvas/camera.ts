/** Moves the view over the picture. */

import { panBy, pinch, zoomAt } from "../room/geometry.ts";
import type { Size } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import * as store from "../room/store.ts";

/** Zooms around a canvas point; by default around the middle. */
export function zoom(factor: number, around?: XY): void {
  withPicture((picture, canvas) => {
    const at = around ?? [canvas.width / 2, canvas.height / 2];
    store.camera.value = zoomAt(store.view.value, at, factor, picture, canvas);
  });
}

/** To one CSS pixel per pixel of the picture. */
export function zoomToActualSize(): void {
  zoom(1 / store.view.value.scale);
}

/** Shows the whole picture, whatever size the canvas is or gets. */
export function zoomToFit(): void {
  store.camera.value = null;
}

export function pan(by: XY, from = store.view.value): void {
  withPicture((picture, canvas) => {
    store.camera.value = panBy(from, by, picture, canvas);
  });
}

/** Two fingers moved from `before` to `now`, on the canvas. */
export function pinchBy(before: readonly [XY, XY], now: readonly [XY, XY]): void {
  withPicture((picture, canvas) => {
    store.camera.value = pinch(store.view.value, before, now, picture, canvas);
  });
}

function withPicture(change: (picture: Size, canvas: Size) => void): void {
  const picture = store.picture.value;
  if (picture !== null) change(picture, store.canvasSize.value);
}
