/**
 * The instant guess: a picture warped from handles to targets by a smooth displacement field. The same function as
 * `editor/warp.py`, which says how the field is made and why; `tests/warp.json` holds both to it.
 */

import { clamp } from "./geometry.ts";
import type { Size } from "./geometry.ts";
import type { XY } from "./protocol.ts";

export interface Ends {
  readonly handle: XY;
  readonly target: XY;
}

/** How deep in the mask each cell lies, in pixels of the picture; row by row. */
export interface Depths {
  readonly grid: Size;
  readonly values: Float64Array;
}

const GRID = 128;
const LEAST_REACH = 1 / 8;
const FRONT = 1;
const SIDE = 1.25;
const BACK = 2;
const LEAST_BACK = 1.3;
const STEEPEST = 1.25;
const BEND = 0.2;

/** Blocks along the warped picture's longest side; the field is linear within one. */
const BLOCKS = 64;

interface Pull {
  readonly x: number;
  readonly y: number;
  readonly dx: number;
  readonly dy: number;
  readonly ux: number;
  readonly uy: number;
  readonly front: number;
  readonly side: number;
  readonly back: number;
  readonly depth: number;
}

export class WarpField {
  readonly size: Size;
  readonly #depths: Depths | null;
  readonly #cell: XY;
  readonly #pulls: readonly Pull[];

  /** `depths` null: everything may change. */
  constructor(drags: readonly Ends[], depths: Depths | null, size: Size) {
    const grid = gridSize(size);
    this.size = size;
    this.#depths = depths;
    this.#cell = [size.width / grid.width, size.height / grid.height];
    this.#pulls = drags.map((drag) => this.#pull(drag));
  }

  /** The displacement, in pixels, at a place of the picture: what shows there is what was at the place plus this. */
  at(x: number, y: number): XY {
    const depth = this.#depths === null ? null : this.#depthAt(this.#depths, x, y);
    if (depth !== null && depth <= 0) return ZERO;
    let total = 0;
    let dx = 0;
    let dy = 0;
    for (const pull of this.#pulls) {
      const along = (x - pull.x) * pull.ux + (y - pull.y) * pull.uy;
      const across = (y - pull.y) * pull.ux - (x - pull.x) * pull.uy;
      const squared = (along / (along > 0 ? pull.back : pull.front)) ** 2 + (across / pull.side) ** 2;
      if (squared >= 1) continue;
      let strength = fall(Math.sqrt(squared));
      if (depth !== null) strength *= rise(depth / pull.depth);
      const weight = strength / Math.max(squared, 1e-12);
      total += weight;
      dx += weight * strength * pull.dx;
      dy += weight * strength * pull.dy;
    }
    return total === 0 ? ZERO : [dx / total, dy / total];
  }

  #pull({ handle, target: [x, y] }: Ends): Pull {
    const dx = handle[0] - x;
    const dy = handle[1] - y;
    const length = Math.hypot(dx, dy);
    const least = LEAST_REACH * Math.max(this.size.width, this.size.height);
    const side = Math.max(SIDE * length, least);
    // What holds its place does so alike in every direction.
    const [ux, uy] = length > 0 ? [dx / length, dy / length] : [1, 0];
    const room = length > 0 ? this.#room(x, y, ux, uy, Math.max(BACK * length, least)) : least;
    const depth = this.#depths === null ? side : Math.min(this.#depthAt(this.#depths, x, y), side);
    return {
      x,
      y,
      dx,
      dy,
      ux,
      uy,
      front: Math.max(FRONT * length, least),
      side,
      back: Math.max(LEAST_BACK * length, room),
      depth: Math.max(depth, Math.hypot(...this.#cell)),
    };
  }

  /** How far from (x, y) one can go in the direction (ux, uy) within picture and mask; at most `most`. */
  #room(x: number, y: number, ux: number, uy: number, most: number): number {
    const { width, height } = this.size;
    let far = most;
    for (const [at, step, last] of [
      [x, ux, width - 1],
      [y, uy, height - 1],
    ] as const) {
      if (step !== 0) far = Math.min(far, Math.max(0, ((step > 0 ? last : 0) - at) / step));
    }
    if (this.#depths === null) return far;
    const stride = Math.max(width, height) / GRID;
    let gone = 0;
    let depth = this.#depthAt(this.#depths, x, y);
    while (depth > 0 && gone < far) {
      const further = Math.min(gone + stride, far);
      const next = this.#depthAt(this.#depths, x + ux * further, y + uy * further);
      if (next <= 0) return gone + ((further - gone) * depth) / (depth - next);
      gone = further;
      depth = next;
    }
    return gone;
  }

  /** Bilinear between the centres of the cells. */
  #depthAt({ grid, values }: Depths, x: number, y: number): number {
    const column = clamp((x + 0.5) / this.#cell[0] - 0.5, 0, grid.width - 1);
    const row = clamp((y + 0.5) / this.#cell[1] - 0.5, 0, grid.height - 1);
    const left = Math.floor(column);
    const top = Math.floor(row);
    const right = Math.min(left + 1, grid.width - 1);
    const bottom = Math.min(top + 1, grid.height - 1);
    const value = (r: number, c: number) => values[r * grid.width + c] ?? 0;
    const upper = value(top, left) + (column - left) * (value(top, right) - value(top, left));
    const lower = value(bottom, left) + (column - left) * (value(bottom, right) - value(bottom, left));
    return upper + (row - top) * (lower - upper);
  }
}

const ZERO: XY = [0, 0];

/** Columns and rows of the cells in which the mask's depth is reckoned. */
export function gridSize(picture: Size): Size {
  const longest = Math.max(picture.width, picture.height);
  const side = (length: number) => Math.min(length, Math.max(1, Math.floor((length * GRID) / longest + 0.5)));
  return { width: side(picture.width), height: side(picture.height) };
}

/** Row by row, 1 where a cell of `grid` is open: where every pixel it touches `mayChange`, of a mask of `width` x `height`. */
export function openCells(mayChange: (index: number) => boolean, { width, height }: Size, grid: Size): Uint8Array {
  const open = new Uint8Array(grid.width * grid.height).fill(1);
  for (let y = 0; y < height; y++) {
    const top = Math.floor((y * grid.height) / height);
    const bottom = Math.ceil(((y + 1) * grid.height) / height);
    for (let x = 0; x < width; x++) {
      if (mayChange(y * width + x)) continue;
      const left = Math.floor((x * grid.width) / width);
      const right = Math.ceil(((x + 1) * grid.width) / width);
      for (let row = top; row < bottom; row++) open.fill(0, row * grid.width + left, row * grid.width + right);
    }
  }
  return open;
}

/** From the open cells of a picture's grid. Null where no cell is closed. */
export function depthsOf(open: Uint8Array, grid: Size, picture: Size): Depths | null {
  if (open.every((cell) => cell === 1)) return null;
  const { width: columns, height: rows } = grid;
  const [wide, high] = [picture.width / columns, picture.height / rows];
  const vertical = Float64Array.from(open, (cell) => (cell === 1 ? Infinity : 0));
  const spread = (row: number, from: number) => {
    for (let column = 0; column < columns; column++) {
      const near = (vertical[from * columns + column] ?? 0) + high;
      if (near < (vertical[row * columns + column] ?? 0)) vertical[row * columns + column] = near;
    }
  };
  for (let row = 1; row < rows; row++) spread(row, row - 1);
  for (let row = rows - 2; row >= 0; row--) spread(row, row + 1);
  const diagonal = Math.hypot(wide, high);
  const values = new Float64Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let least = Infinity;
      // Outwards, until what is further aside cannot be nearer.
      for (let aside = 0; aside < columns && (aside * wide) ** 2 < least; aside++) {
        const left = column >= aside ? (vertical[row * columns + column - aside] ?? 0) : Infinity;
        const right = column + aside < columns ? (vertical[row * columns + column + aside] ?? 0) : Infinity;
        least = Math.min(least, (aside * wide) ** 2 + Math.min(left, right) ** 2);
      }
      values[row * columns + column] = Math.sqrt(least) - diagonal;
    }
  }
  return { grid, values };
}

/** From 1 at 0 to 0 at 1 and beyond, once differentiable, nowhere steeper than `STEEPEST`. */
function fall(away: number): number {
  if (away < BEND) return 1 - (STEEPEST / (2 * BEND)) * away ** 2;
  if (away > 1 - BEND) return (STEEPEST / (2 * BEND)) * (1 - Math.min(away, 1)) ** 2;
  return 1 - STEEPEST * (away - BEND / 2);
}

/** From 0 at 0 and below to 1 at 1 and above, once differentiable. */
function rise(part: number): number {
  const within = clamp(part, 0, 1);
  return within * within * (3 - 2 * within);
}

export interface Pixels extends Size {
  /** RGBA, row by row. */
  readonly data: Uint8ClampedArray;
}

/**
 * Writes the warped picture over `into`, of the same size as `source`, which may be a smaller copy of the field's
 * picture. Transparent where nothing moves, so that the picture itself shows through, as sharp as it is. Returns whether anything moves.
 */
export function warpPixels(source: Pixels, field: WarpField, into: Pixels): boolean {
  const { width, height, data: from } = source;
  const to = into.data;
  let moves = false;
  to.fill(0);
  const scale = field.size.width / width;
  const block = Math.ceil(Math.max(width, height) / BLOCKS);
  const columns = Math.ceil(width / block) + 1;
  const rows = Math.ceil(height / block) + 1;
  const dx = new Float64Array(columns * rows);
  const dy = new Float64Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [x, y] = field.at((column * block + 0.5) * scale - 0.5, (row * block + 0.5) * scale - 0.5);
      dx[row * columns + column] = x / scale;
      dy[row * columns + column] = y / scale;
    }
  }
  for (let row = 0; row + 1 < rows; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const corner = row * columns + column;
      const [x0, x1, x2, x3] = cornersOf(dx, corner, columns);
      const [y0, y1, y2, y3] = cornersOf(dy, corner, columns);
      if (x0 === 0 && x1 === 0 && x2 === 0 && x3 === 0 && y0 === 0 && y1 === 0 && y2 === 0 && y3 === 0) continue;
      moves = true;
      const left = column * block;
      const right = Math.min(left + block, width);
      for (let y = row * block; y < Math.min((row + 1) * block, height); y++) {
        const down = y / block - row;
        let sx = left + x0 + (x2 - x0) * down;
        let sy = y + y0 + (y2 - y0) * down;
        const stepX = 1 + (x1 + (x3 - x1) * down - x0 - (x2 - x0) * down) / block;
        const stepY = (y1 + (y3 - y1) * down - y0 - (y2 - y0) * down) / block;
        for (let x = left, at = (y * width + left) * 4; x < right; x++, at += 4, sx += stepX, sy += stepY) {
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
          // A channel at a time and without checks: this runs for every pixel that moves.
          const wd = h * v;
          const wb = h - wd;
          const wc = v - wd;
          const wa = 1 - h - wc;
          to[at] = wa * from[a]! + wb * from[b]! + wc * from[c]! + wd * from[d]!;
          to[at + 1] = wa * from[a + 1]! + wb * from[b + 1]! + wc * from[c + 1]! + wd * from[d + 1]!;
          to[at + 2] = wa * from[a + 2]! + wb * from[b + 2]! + wc * from[c + 2]! + wd * from[d + 2]!;
          to[at + 3] = 255;
        }
      }
    }
  }
  return moves;
}

function cornersOf(values: Float64Array, corner: number, columns: number): readonly [number, number, number, number] {
  return [
    values[corner] ?? 0,
    values[corner + 1] ?? 0,
    values[corner + columns] ?? 0,
    values[corner + columns + 1] ?? 0,
  ];
}
