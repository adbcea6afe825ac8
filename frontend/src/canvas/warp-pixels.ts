/** Warps the pixels of a picture by a displacement field. */

import type { Size } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import type { WarpField } from "./warp.ts";

export interface Pixels extends Size {
  /** RGBA, row by row. */
  readonly data: Uint8ClampedArray;
}

/** Blocks along the longest side; the field is sampled at their corners and interpolated within. */
const BLOCKS = 64;

/** Pixels that move less than this, in pixels of `into`, are partly transparent. */
const FADE = 2;

/** One component of the displacement at a block's corners, in pixels: top left and right, bottom left and right. */
type Corners = readonly [number, number, number, number];

interface Displacements {
  /** Side of a block, in pixels. */
  readonly block: number;
  /** Blocks across and down. */
  readonly columns: number;
  readonly rows: number;
  readonly x: Float64Array;
  readonly y: Float64Array;
}

/**
 * Writes the warped picture to `into`, which has the size of `source`, possibly a smaller copy of the field's picture.
 * Pixels that don't move stay transparent, so that the sharp picture below shows; there is no edge between the two.
 * Returns whether anything moves.
 */
export function warpPixels(source: Pixels, field: WarpField, into: Pixels): boolean {
  into.data.fill(0);
  const displacements = sampleField(field, source);
  const { block, columns, rows } = displacements;
  let moves = false;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const corner = row * (columns + 1) + column;
      const dx = cornersOf(displacements.x, corner, columns + 1);
      const dy = cornersOf(displacements.y, corner, columns + 1);
      if (isZero(dx) && isZero(dy)) continue;
      moves = true;
      warpBlock(source, into.data, [column * block, row * block], block, dx, dy);
    }
  }
  return moves;
}

function sampleField(field: WarpField, { width, height }: Size): Displacements {
  const scale = field.size.width / width;
  const block = Math.ceil(Math.max(width, height) / BLOCKS);
  const columns = Math.ceil(width / block);
  const rows = Math.ceil(height / block);
  const x = new Float64Array((columns + 1) * (rows + 1));
  const y = new Float64Array((columns + 1) * (rows + 1));
  for (let row = 0, at = 0; row <= rows; row++) {
    for (let column = 0; column <= columns; column++, at++) {
      const [dx, dy] = field.at((column * block + 0.5) * scale - 0.5, (row * block + 0.5) * scale - 0.5);
      x[at] = dx / scale;
      y[at] = dy / scale;
    }
  }
  return { block, columns, rows, x, y };
}

/** Writes one block, whose displacement is `dx`, `dy` at its corners. */
function warpBlock(
  { width, height, data: from }: Pixels,
  to: Uint8ClampedArray,
  [left, top]: XY,
  block: number,
  [x0, x1, x2, x3]: Corners,
  [y0, y1, y2, y3]: Corners,
): void {
  const right = Math.min(left + block, width);
  const bottom = Math.min(top + block, height);
  for (let y = top; y < bottom; y++) {
    const down = (y - top) / block;
    // Where the row's first pixel comes from, and how that moves from one pixel to the next.
    let sx = left + x0 + (x2 - x0) * down;
    let sy = y + y0 + (y2 - y0) * down;
    const stepX = 1 + (x1 + (x3 - x1) * down - x0 - (x2 - x0) * down) / block;
    const stepY = (y1 + (y3 - y1) * down - y0 - (y2 - y0) * down) / block;
    for (let x = left, at = (y * width + left) * 4; x < right; x++, at += 4, sx += stepX, sy += stepY) {
      // Bilinear, unrolled and unchecked: this runs for every pixel that moves.
      const cx = sx < 0 ? 0 : sx > width - 1 ? width - 1 : sx;
      const cy = sy < 0 ? 0 : sy > height - 1 ? height - 1 : sy;
      const ix = cx | 0;
      const iy = cy | 0;
      const h = cx - ix;
      const v = cy - iy;
      const a = (iy * width + ix) * 4;
      const b = ix + 1 < width ? a + 4 : a;
      const c = iy + 1 < height ? a + width * 4 : a;
      const d = b + c - a;
      const wd = h * v;
      const wb = h - wd;
      const wc = v - wd;
      const wa = 1 - h - wc;
      to[at] = wa * from[a]! + wb * from[b]! + wc * from[c]! + wd * from[d]!;
      to[at + 1] = wa * from[a + 1]! + wb * from[b + 1]! + wc * from[c + 1]! + wd * from[d + 1]!;
      to[at + 2] = wa * from[a + 2]! + wb * from[b + 2]! + wc * from[c + 2]! + wd * from[d + 2]!;
      const moved = Math.abs(sx - x) + Math.abs(sy - y);
      to[at + 3] = moved < FADE ? (255 / FADE) * moved : 255;
    }
  }
}

function cornersOf(values: Float64Array, corner: number, stride: number): Corners {
  return [values[corner] ?? 0, values[corner + 1] ?? 0, values[corner + stride] ?? 0, values[corner + stride + 1] ?? 0];
}

function isZero(corners: Corners): boolean {
  return corners.every((value) => value === 0);
}
