import { describe, expect, it } from "vitest";
import { looksLikePhoto } from "./photo.ts";

function picture(colour: (x: number, y: number) => number): {
  data: Uint8ClampedArray<ArrayBuffer>;
  width: number;
  height: number;
} {
  const [width, height] = [64, 48];
  const data = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) data.fill(colour(x, y), (y * width + x) * 4, (y * width + x) * 4 + 3);
  return { data, width, height };
}

describe("photographs", () => {
  it("have grain everywhere", () => {
    expect(looksLikePhoto(picture((x, y) => 100 + x + ((x * x * 31 + y * 17) % 7)))).toBe(true);
  });

  it("are distinguished from drawings with a plain background", () => {
    expect(looksLikePhoto(picture((x, y) => (Math.hypot(x - 32, y - 24) < 18 ? 40 + 3 * x : 230)))).toBe(false);
  });

  it("are no pictures of one pixel", () => {
    expect(looksLikePhoto({ data: new Uint8ClampedArray(4), width: 1, height: 1 })).toBe(false);
  });
});
