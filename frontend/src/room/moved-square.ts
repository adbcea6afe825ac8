/** The part of a picture in which its drags move things; pure. */

import type { Size } from "./geometry.ts";
import { clamp } from "./geometry.ts";
import type { XY } from "./protocol.ts";

/** Content reaches further than its points: by this share of the picture's shorter side. */
const MARGIN = 0.15;
/** Smallest side, as a share of the shorter side: thumbnails have few pixels. */
const MIN_SIDE = 0.4;

/** Left, top, width and height, in shares of the picture's. */
export type Square = readonly [x: number, y: number, width: number, height: number];

interface Moved {
  readonly start: XY;
  readonly handle: XY;
  readonly target: XY;
}

/** The square around all places of the drags, or the middle one without drags. */
export function movedSquare(picture: Size | null, drags: readonly Moved[]): Square {
  if (picture === null) return [0, 0, 1, 1];
  const { width, height } = picture;
  const shorter = Math.min(width, height);
  const places = drags.flatMap(({ start, handle, target }) => [start, handle, target]);
  const xs = places.length > 0 ? places.map(([x]) => x) : [width / 2];
  const ys = places.length > 0 ? places.map(([, y]) => y) : [height / 2];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const needed = Math.max(right - left, bottom - top) + 2 * MARGIN * shorter;
  const side = places.length > 0 ? clamp(needed, MIN_SIDE * shorter, shorter) : shorter;
  const x = clamp((left + right - side) / 2, 0, width - side);
  const y = clamp((top + bottom - side) / 2, 0, height - side);
  return [x / width, y / height, side / width, side / height];
}
