import { expect, it } from "vitest";
import { isEditable, startsWhite } from "./editable-area.ts";
import type { MaskLayer, Stroke, XY } from "./protocol.ts";

const stroke = (mode: "paint" | "erase", points: readonly XY[] = [[5, 5]], radius = 10): Stroke => ({
  type: "stroke",
  id: mode,
  mode,
  radius,
  points,
  softness: 0,
});
const painted = stroke("paint", [
  [20, 20],
  [80, 20],
]);
const none = () => false;

it("is everything while nothing is painted", () => {
  expect(isEditable([], [5, 5], none)).toBe(true);
});

it("is what has been painted and not erased since, wherever on the stroke", () => {
  expect(isEditable([painted], [50, 29], none)).toBe(true);
  expect(isEditable([painted], [50, 31], none)).toBe(false);
  expect(isEditable([painted], [91, 20], none)).toBe(false);
  expect(isEditable([painted, stroke("erase", [[50, 20]], 5)], [50, 22], none)).toBe(false);
});

it("is the rest where the first stroke erases, or after an inversion", () => {
  expect(isEditable([stroke("erase", [[50, 20]])], [5, 5], none)).toBe(true);
  expect(isEditable([painted, { type: "invert", id: "i" }], [50, 20], none)).toBe(false);
});

it("is drawn on white where the first thing ever done erases, as on the server", () => {
  const raster = { type: "raster", id: "m", sha256: "f".repeat(64) } as const;
  expect(startsWhite([stroke("erase"), stroke("paint")], null)).toBe(true);
  expect(startsWhite([], stroke("erase"))).toBe(true);
  expect(startsWhite([], stroke("paint"))).toBe(false);
  expect(startsWhite([stroke("paint")], stroke("erase"))).toBe(false);
  expect(startsWhite([raster, stroke("erase")], null)).toBe(false);
});

it("is what is white in a loaded mask", () => {
  const loaded: MaskLayer = { type: "raster", id: "r", sha256: "1" };
  expect(isEditable([painted, loaded], [50, 20], none)).toBe(false);
  expect(isEditable([loaded], [5, 5], (sha256, [x]) => sha256 === "1" && x === 5)).toBe(true);
});

it("is what a filled stroke encloses, whatever its radius", () => {
  const square: Stroke = {
    ...painted,
    radius: 90,
    fill: true,
    points: [
      [10, 10],
      [90, 10],
      [90, 90],
      [10, 90],
    ],
  };
  expect(isEditable([square], [50, 50], none)).toBe(true);
  expect(isEditable([square], [5, 50], none)).toBe(false);
});

it("grows and shrinks, also several times", () => {
  const grow = (pixels: number, id = `g${pixels}`): MaskLayer => ({ type: "grow", id, pixels });
  expect(isEditable([painted, grow(10)], [50, 38], none)).toBe(true);
  expect(isEditable([painted, grow(10)], [50, 42], none)).toBe(false);
  expect(isEditable([painted, grow(4), grow(6)], [50, 38], none)).toBe(true);
  expect(isEditable([painted, grow(-5)], [50, 24], none)).toBe(true);
  expect(isEditable([painted, grow(-5)], [50, 27], none)).toBe(false);
  expect(isEditable([painted, grow(-5), { type: "invert", id: "i" }], [50, 27], none)).toBe(true);
  expect(isEditable([grow(5)], [50, 27], none)).toBe(true);
});
