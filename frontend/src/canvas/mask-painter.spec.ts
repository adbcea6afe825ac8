import { describe, expect, it } from "vitest";
import { startsWhite } from "./mask-painter.ts";
import type { Stroke } from "../room/protocol.ts";

const stroke = (mode: Stroke["mode"]): Stroke => ({ type: "stroke", id: mode, mode, radius: 3, points: [[5, 5]] });
const raster = { type: "raster", id: "m", sha256: "f".repeat(64) } as const;

describe("the mask", () => {
  it("is drawn on white where the first thing ever done erases, as on the server", () => {
    expect(startsWhite([stroke("erase"), stroke("paint")], null)).toBe(true);
    expect(startsWhite([], stroke("erase"))).toBe(true);
    expect(startsWhite([], stroke("paint"))).toBe(false);
    expect(startsWhite([stroke("paint")], stroke("erase"))).toBe(false);
    expect(startsWhite([raster, stroke("erase")], null)).toBe(false);
  });
});
