import { expect, it } from "vitest";
import { multiply, qrCode } from "./qr.ts";

/** Both as the Python package `qrcode` 8 makes them, a program with a history of its own. */
const KNOWN = [
  "#######.#.#..###.###..#######",
  "#.....#.#..#.#..#.#.#.#.....#",
  "#.###.#...#.....#.#...#.###.#",
  "#.###.#.#.#.#.##.#..#.#.###.#",
  "#.###.#..#..#.#.##.#..#.###.#",
  "#.....#....#.#.##..##.#.....#",
  "#######.#.#.#.#.#.#.#.#######",
  "........#.#....#####.........",
  "#.##.###..##.#.###....#..#.##",
  "#.###..#..##.###...#.##.#...#",
  "#####.###.####...#...##.#.##.",
  "##.#.#.##.........###..#....#",
  "###.#.#...#.#.####.......##..",
  "..##....###...####.#..#...###",
  "#####.##.##.##...#.#.###..###",
  "#.##.#...###..###.#.#...#..#.",
  "#.#..#####..#.#....###.###.#.",
  ".#.#.#...#.#..##..#.##.#.###.",
  "#..####.###..###.##..##...#..",
  "..###..#########.#..#..#..#..",
  ".###.##...#.###..#.########..",
  "........##.##...#.###...#####",
  "#######.#.#.#.#.#..##.#.##.#.",
  "#.....#.#.#.#####.#.#...##...",
  "#.###.#..#..#..#.#..#####.##.",
  "#.###.#.#.####.#######..##..#",
  "#.###.#.#..##.#..#..#..#..#.#",
  "#.....#.......#.....##..##.#.",
  "#######.#.##.#..#..###.....#.",
];
const LONG = {
  text: `https://drag.example.org/below/a/path/r/AbCdEfGhIjKl#${"x".repeat(60)}`,
  version: 7,
  hash: 614012520,
};

const rows = (text: string) => qrCode(text).map((row) => row.map((dark) => (dark ? "#" : ".")).join(""));

it("draws what another encoder draws", () => {
  expect(rows("https://drag.example/r/a1b2#s3cret")).toEqual(KNOWN);
});

it("draws larger versions so too, with their version information and several blocks", () => {
  const drawn = rows(LONG.text);
  expect(drawn).toHaveLength(LONG.version * 4 + 17);
  const hash = [...drawn.join("")].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) >>> 0, 0);
  expect(hash).toBe(LONG.hash);
});

it("says what is too long", () => {
  expect(() => qrCode("x".repeat(400))).toThrow(/400 bytes/);
});

it("multiplies in the field", () => {
  expect(multiply(2, 128)).toBe(0x1d);
  expect(multiply(7, 1)).toBe(7);
});
