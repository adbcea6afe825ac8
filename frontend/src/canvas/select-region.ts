/** Selecting what has a similar colour around a place of the picture. */

import { addFill } from "../room/actions.ts";
import { isInside } from "../room/geometry.ts";
import { MAX_STROKE_POINTS } from "../room/protocol.ts";
import type { XY } from "../room/protocol.ts";
import { outlineOf, similarRegion } from "../room/region.ts";
import * as store from "../room/store.ts";

/** Longest side of the copy in which colours are compared, in pixels. */
const SIDE = 512;

/** Adds to the editable area, or takes from it, what looks like the place `at` in the picture that is shown. */
export function selectRegion(mode: "paint" | "erase", at: XY): void {
  const picture = store.picture.value;
  const bitmap = store.showing.value === "result" ? store.result.value : store.original.value;
  if (picture === null || bitmap === null || !isInside(picture, at)) return;
  const scale = Math.min(1, SIDE / Math.max(picture.width, picture.height));
  const [width, height] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) return;
  context.drawImage(bitmap, 0, 0, width, height);
  const seed: XY = [
    Math.min(width - 1, Math.floor((at[0] + 0.5) * scale)),
    Math.min(height - 1, Math.floor((at[1] + 0.5) * scale)),
  ];
  const region = similarRegion(context.getImageData(0, 0, width, height), seed, store.tolerance.value);
  // A pixel's corner lies half a pixel before its centre.
  addFill(
    mode,
    outlineOf(region, MAX_STROKE_POINTS).map(([x, y]) => [
      (x * picture.width) / width - 0.5,
      (y * picture.height) / height - 0.5,
    ]),
  );
}
