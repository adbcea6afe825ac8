import { describe, expect, it } from "vitest";
import { movedSquare } from "./moved-square.ts";

const picture = { width: 400, height: 200 };
const drag = (x: number, y: number, toX: number, toY: number) => ({
  start: [x, y] as const,
  handle: [x, y] as const,
  target: [toX, toY] as const,
});

describe("the part of the picture that thumbnails show", () => {
  it("is the middle square without points", () => {
    expect(movedSquare(picture, [])).toEqual([0.25, 0, 0.5, 1]);
  });

  it("lies around what moves, with a margin", () => {
    const [x, y, width, height] = movedSquare(picture, [drag(300, 60, 320, 100)]);
    expect(width * 400).toBeCloseTo(100);
    expect(height * 200).toBeCloseTo(100);
    expect([x * 400, y * 200]).toEqual([260, 30]);
  });

  it("stays in the picture", () => {
    const [x, y, width, height] = movedSquare(picture, [drag(399, 0, 390, 5)]);
    expect(x + width).toBeCloseTo(1);
    expect(y).toBe(0);
    expect(height).toBeCloseTo(0.4);
  });

  it("is as large as the picture allows for points far apart", () => {
    const [x, y, width, height] = movedSquare(picture, [drag(0, 0, 399, 199)]);
    expect([y, width, height]).toEqual([0, 0.5, 1]);
    expect(x * 400).toBeCloseTo(99.5);
  });
});
