/** The displacements that the editor's tests record: both sides warp by the same function. */

import { describe, expect, it } from "vitest";
import recorded from "../../../tests/warp.json";
import { warpPixels } from "./warp-pixels.ts";
import type { Pixels } from "./warp-pixels.ts";
import { WarpField, depthsOf, gridSize, openCells } from "./warp.ts";
import type { DragEnds, Size } from "../room/geometry.ts";

interface Case {
  readonly name: string;
  readonly picture: readonly [number, number];
  /** A union of rectangles that may change: left, top, right, bottom; right and bottom excluded. */
  readonly mask: readonly (readonly [number, number, number, number])[] | null;
  readonly drags: readonly (readonly [handle: readonly [number, number], target: readonly [number, number]])[];
  readonly places: readonly (readonly [number, number])[];
  readonly displacements: readonly (readonly [number, number])[];
}

function fieldOf({
  picture: [width, height],
  mask,
  drags,
}: Omit<Case, "name" | "places" | "displacements">): WarpField {
  const size: Size = { width, height };
  const ends: DragEnds[] = drags.map(([handle, target]) => ({ handle, target }));
  if (mask === null) return new WarpField(ends, null, size);
  const plane = new Uint8Array(width * height);
  for (const [left, top, right, bottom] of mask) {
    for (let y = top; y < bottom; y++) plane.fill(1, y * width + left, y * width + right);
  }
  const grid = gridSize(size);
  return new WarpField(
    ends,
    depthsOf(
      openCells((index) => plane[index] === 1, size, grid),
      grid,
      size,
    ),
    size,
  );
}

describe("the field", () => {
  it.each(recorded as unknown as Case[])("is the editor's: $name", (known) => {
    const field = fieldOf(known);
    let worst = 0;
    known.places.forEach(([x, y], index) => {
      const [dx, dy] = field.at(x, y);
      const [wantedX, wantedY] = known.displacements[index] ?? [NaN, NaN];
      worst = Math.max(worst, Math.abs(dx - wantedX), Math.abs(dy - wantedY));
    });
    expect(known.places.length).toBeGreaterThan(80);
    expect(worst).toBeLessThan(1e-3);
  });
});

describe("the warped picture", () => {
  const width = 120;
  const height = 90;
  const blank = (): Pixels => ({ width, height, data: new Uint8ClampedArray(width * height * 4) });
  const ramp = blank();
  for (let at = 0; at < width * height; at++)
    ramp.data.set([2 * (at % width), 2 * Math.floor(at / width), 7, 255], at * 4);
  const pixel = (of: Pixels, x: number, y: number) =>
    Array.from(of.data.slice((y * width + x) * 4, (y * width + x) * 4 + 4));

  it("shows at the target what was at the handle, near enough for a preview", () => {
    const into = blank();
    warpPixels(
      ramp,
      fieldOf({
        picture: [width, height],
        mask: null,
        drags: [
          [
            [40, 40],
            [60, 50],
          ],
        ],
      }),
      into,
    );
    const [red = 0, green = 0, blue, alpha] = pixel(into, 60, 50);
    expect(Math.abs(red - 80)).toBeLessThanOrEqual(2);
    expect(Math.abs(green - 80)).toBeLessThanOrEqual(2);
    expect([blue, alpha]).toEqual([7, 255]);
  });

  it("counts in pixels of the picture where it is a smaller copy", () => {
    const into = blank();
    warpPixels(
      ramp,
      fieldOf({
        picture: [4 * width, 4 * height],
        mask: null,
        drags: [
          [
            [161.5, 161.5],
            [241.5, 201.5],
          ],
        ],
      }),
      into,
    );
    const [red = 0, green = 0] = pixel(into, 60, 50);
    expect(Math.abs(red - 80)).toBeLessThanOrEqual(2);
    expect(Math.abs(green - 80)).toBeLessThanOrEqual(2);
  });

  it("fades in without an edge", () => {
    const into = blank();
    const drag = [
      [50, 45],
      [70, 45],
    ] as const;
    warpPixels(ramp, fieldOf({ picture: [width, height], mask: null, drags: [drag] }), into);
    const alpha = (x: number, y: number) => pixel(into, x, y)[3] ?? 0;
    let opaque = 0;
    let edge = 0;
    for (let y = 1; y < height; y++) {
      for (let x = 1; x < width; x++) {
        if (alpha(x, y) === 255) opaque += 1;
        if (alpha(x, y) === 0) edge = Math.max(edge, alpha(x - 1, y), alpha(x, y - 1));
      }
    }
    expect(opaque).toBeGreaterThan(400);
    expect(edge).toBeLessThan(90);
  });

  it("is transparent where nothing moves", () => {
    const into = blank();
    warpPixels(
      ramp,
      fieldOf({
        picture: [width, height],
        mask: [[0, 0, 60, 90]],
        drags: [
          [
            [30, 40],
            [40, 40],
          ],
        ],
      }),
      into,
    );
    expect(pixel(into, 40, 40)[3]).toBe(255);
    for (let y = 0; y < height; y++) expect(pixel(into, 75, y)[3]).toBe(0);
    expect(warpPixels(ramp, fieldOf({ picture: [width, height], mask: null, drags: [] }), into)).toBe(false);
    expect(into.data.every((level) => level === 0)).toBe(true);
  });
});
