import { expect, it } from "vitest";
import { isEditable } from "./editable-area.ts";
import type { XY } from "./protocol.ts";
import { outlineOf, similarRegion } from "./region.ts";

/** A grey picture: `level` of each pixel, row by row. */
function picture(width: number, height: number, level: (x: number, y: number) => number) {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let pixel = 0; pixel < width * height; pixel++) {
    data.fill(level(pixel % width, Math.floor(pixel / width)), pixel * 4, pixel * 4 + 3);
  }
  return { data, width, height };
}

const inBox = (x: number, y: number, from: number, to: number) => x >= from && x < to && y >= from && y < to;
const none = () => false;

function encloses(points: readonly XY[], place: XY): boolean {
  return isEditable([{ type: "stroke", id: "s", mode: "paint", radius: 1, points, fill: true }], place, none);
}

it("is what is connected and looks alike", () => {
  const two = picture(40, 40, (x, y) => (inBox(x, y, 5, 15) ? 200 : inBox(x, y, 25, 35) ? 200 : 50));
  const { inside } = similarRegion(two, [8, 8], 0.1);
  expect(inside.reduce((sum, one) => sum + one, 0)).toBe(100);
  const shaded = picture(40, 40, (x) => x * 3);
  const narrow = similarRegion(shaded, [20, 20], 0.1).inside.reduce((sum, one) => sum + one, 0);
  const wide = similarRegion(shaded, [20, 20], 0.2).inside.reduce((sum, one) => sum + one, 0);
  expect(wide).toBeGreaterThan(1.5 * narrow);
});

it("has an outline with its holes, around everything that is inside", () => {
  const ring = picture(40, 40, (x, y) => (inBox(x, y, 15, 25) ? 200 : 50));
  const points = outlineOf(similarRegion(ring, [2, 2], 0.1), 2000);
  expect(points.length).toBeLessThan(30);
  for (const place of [
    [1, 1],
    [38, 38],
    [20, 5],
    [12, 20],
  ] as const)
    expect(encloses(points, place)).toBe(true);
  for (const place of [
    [20, 20],
    [16, 24],
    [41, 20],
  ] as const)
    expect(encloses(points, place)).toBe(false);
});

it("fills specks, and has no more points than asked for", () => {
  const specks = picture(200, 200, (x, y) => (x % 20 === 0 && y % 20 === 0 ? 200 : 50));
  expect(similarRegion(specks, [5, 5], 0.1).inside.every((one) => one === 1)).toBe(true);
  const rough = picture(200, 200, (x, y) => (y < 100 + 40 * Math.sin(x * x) ? 50 : 200));
  expect(outlineOf(similarRegion(rough, [5, 5], 0.1), 100).length).toBeLessThanOrEqual(100);
});
