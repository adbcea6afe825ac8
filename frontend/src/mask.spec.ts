import { describe, expect, it } from "vitest";
import { beginsWhite } from "./mask.ts";
import type { Stroke } from "./protocol.ts";

const stroke = (mode: Stroke["mode"]): Stroke => ({ type: "stroke", id: mode, mode, radius: 3, points: [[5, 5]] });
const raster = { type: "raster", id: "m", sha256: "f".repeat(64) } as const;

describe("the mask", () => {
  it("is drawn on white where the first thing ever done erases, as on the server", () => {
    expect(beginsWhite([stroke("erase"), stroke("paint")], null)).toBe(true);
    expect(beginsWhite([], stroke("erase"))).toBe(true);
    expect(beginsWhite([], stroke("paint"))).toBe(false);
    expect(beginsWhite([stroke("paint")], stroke("erase"))).toBe(false);
    expect(beginsWhite([raster, stroke("erase")], null)).toBe(false);
  });
});
