/**
 * The quick preview's warp: a smooth displacement field that moves handles to targets. It is the same function as the
 * editor's `warp.py`, which explains the field; `tests/warp.json` checks both against the same values.
 */

import { clamp } from "../room/geometry.ts";
import type { DragEnds, Size } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";

/** The distance of each cell from the mask's border, in pixels of the picture; row by row. */
export interface MaskDepths {
  readonly grid: Size;
  readonly values: Float64Array;
}

const GRID = 128;
const MIN_REACH = 1 / 8;
const FRONT = 1;
const SIDE = 1.25;
const BACK = 2;
const MIN_BACK = 1.6;
const WIDEST = 3;
const WIDEST_SHARE = 1 / 4;

interface Pull {
  readonly x: number;
  readonly y: number;
  readonly dx: number;
  readonly dy: number;
  readonly ux: number;
  readonly uy: number;
  readonly front: number;
  readonly back: number;
  readonly left: number;
  readonly right: number;
  readonly depth: number;
  readonly blunt: boolean;
}

export class WarpField {
  readonly size: Size;
  readonly #depths: MaskDepths | null;
  readonly #cell: XY;
  readonly #pulls: readonly Pull[];

  /** If `depths` is null, everything may change. */
  constructor(drags: readonly DragEnds[], depths: MaskDepths | null, size: Size) {
    const grid = gridSize(size);
    this.size = size;
    this.#depths = depths;
    this.#cell = [size.width / grid.width, size.height / grid.height];
    this.#pulls = drags.map((drag) => this.#pull(drag));
  }

  /** The displacement at a place, in pixels of the picture: the place shows what was at the place plus this. */
  at(x: number, y: number): XY {
    const depth = this.#depths === null ? null : this.#depthAt(this.#depths, x, y);
    if (depth !== null && depth <= 0) return ZERO;
    let total = 0;
    let dx = 0;
    let dy = 0;
    for (const pull of this.#pulls) {
      const along = (x - pull.x) * pull.ux + (y - pull.y) * pull.uy;
      const across = (y - pull.y) * pull.ux - (x - pull.x) * pull.uy;
      const lengthwise = (along / (along > 0 ? pull.back : pull.front)) ** 2;
      const sideways = (across / (across > 0 ? pull.left : pull.right)) ** 2;
      const squared = lengthwise + (pull.blunt ? sideways ** 2 : sideways);
      if (squared >= 1) continue;
      let strength = fall(Math.sqrt(squared));
      if (depth !== null) strength *= rise(depth / pull.depth);
      const weight = strength / Math.max(lengthwise + sideways, 1e-12);
      total += weight;
      dx += weight * strength * pull.dx;
      dy += weight * strength * pull.dy;
    }
    return total === 0 ? ZERO : [dx / total, dy / total];
  }

  #pull({ handle, target: [x, y] }: DragEnds): Pull {
    const dx = handle[0] - x;
    const dy = handle[1] - y;
    const length = Math.hypot(dx, dy);
    const longest = Math.max(this.size.width, this.size.height);
    const minReach = MIN_REACH * longest;
    const widest = Math.min(WIDEST * length, WIDEST_SHARE * longest);
    // A drag that holds its place does so in every direction alike.
    const [ux, uy] = length > 0 ? [dx / length, dy / length] : [1, 0];
    /** In a direction, at least `least`. */
    const reach = (least: number, vx: number, vy: number) => {
      const base = Math.max(least, minReach);
      if (this.#depths === null || length === 0) return base;
      return Math.max(base, this.#distanceToBorder(x, y, vx, vy, widest));
    };
    const most = Math.max(BACK * length, minReach, this.#depths === null ? 0 : widest);
    const behind = length > 0 ? this.#distanceToBorder(x, y, ux, uy, most) : minReach;
    const across = Math.min(SIDE * length, WIDEST_SHARE * longest);
    const left = reach(across, -uy, ux);
    const right = reach(across, uy, -ux);
    const side = Math.min(left, right);
    const depth = this.#depths === null ? side : Math.min(this.#depthAt(this.#depths, x, y), side);
    return {
      x,
      y,
      dx,
      dy,
      ux,
      uy,
      front: reach(FRONT * length, -ux, -uy),
      back: Math.max(MIN_BACK * length, behind),
      left,
      right,
      depth: Math.max(depth, Math.hypot(...this.#cell)),
      blunt: length > 0,
    };
  }

  /** The distance from (x, y) in the direction (ux, uy) to the border of picture or mask, at most `max`. */
  #distanceToBorder(x: number, y: number, ux: number, uy: number, max: number): number {
    const { width, height } = this.size;
    let far = max;
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
  #depthAt({ grid, values }: MaskDepths, x: number, y: number): number {
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

/** Columns and rows of the grid on which the mask's depth is computed. */
export function gridSize(picture: Size): Size {
  const longest = Math.max(picture.width, picture.height);
  const side = (length: number) => Math.min(length, Math.max(1, Math.floor((length * GRID) / longest + 0.5)));
  return { width: side(picture.width), height: side(picture.height) };
}

/** Row by row, 1 for each cell of `grid` in which every pixel of a `width` x `height` mask may change. */
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

/** From the open cells of a picture's grid; null if all are open. */
export function depthsOf(open: Uint8Array, grid: Size, picture: Size): MaskDepths | null {
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
      let nearest = Infinity;
      // Outwards, until nothing further aside can be nearer.
      for (let aside = 0; aside < columns && (aside * wide) ** 2 < nearest; aside++) {
        const left = column >= aside ? (vertical[row * columns + column - aside] ?? 0) : Infinity;
        const right = column + aside < columns ? (vertical[row * columns + column + aside] ?? 0) : Infinity;
        nearest = Math.min(nearest, (aside * wide) ** 2 + Math.min(left, right) ** 2);
      }
      values[row * columns + column] = Math.sqrt(nearest) - diagonal;
    }
  }
  return { grid, values };
}

/** Falls from 1 at 0 to 0 at 1, differentiable, with a slope of at most pi / 2. */
function fall(away: number): number {
  return Math.cos((Math.min(away, 1) * Math.PI) / 2) ** 2;
}

/** Rises from 0 at 0 to 1 at 1, differentiable. */
function rise(part: number): number {
  const within = clamp(part, 0, 1);
  return within * within * (3 - 2 * within);
}
