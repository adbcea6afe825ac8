/** The size of the brush. Radii are in pixels of the picture, limits in shares of its longest side. */

import { clamp } from "../room/geometry.ts";
import type { Size } from "../room/geometry.ts";
import * as store from "../room/store.ts";

export const MIN_BRUSH = 0.01;
export const MAX_BRUSH = 0.25;
const FIRST_BRUSH = 0.06;
const RESIZE_STEP = 1.2;

export function firstBrushRadius(picture: Size): number {
  return FIRST_BRUSH * Math.max(picture.width, picture.height);
}

/** Makes the brush larger (`steps` > 0) or smaller. */
export function resizeBrush(steps: number): void {
  const picture = store.picture.value;
  if (picture === null) return;
  const longest = Math.max(picture.width, picture.height);
  const radius = store.brushRadius.value * RESIZE_STEP ** steps;
  store.brushRadius.value = clamp(radius, MIN_BRUSH * longest, MAX_BRUSH * longest);
}
