// @vitest-environment happy-dom

import { cleanup, render, screen } from "@testing-library/preact";
import { afterEach, expect, it } from "vitest";
import { QrCode } from "./QrCode.tsx";

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

const QUIET_ZONE = 4;

afterEach(cleanup);

/** The dark modules, "x y". */
function darkModules(text: string): ReadonlySet<string> {
  render(<QrCode text={text} />);
  const path = screen.getByTestId("qr").querySelector("path")?.getAttribute("d") ?? "";
  return new Set([...path.matchAll(/M(\d+) (\d+)h1v1h-1z/g)].map(([, x, y]) => `${x} ${y}`));
}

it("draws the code that another encoder makes, with a quiet zone", () => {
  const expected = KNOWN.flatMap((row, y) =>
    [...row].flatMap((module, x) => (module === "#" ? [`${x + QUIET_ZONE} ${y + QUIET_ZONE}`] : [])),
  );
  expect(darkModules("https://drag.example/r/a1b2#s3cret")).toEqual(new Set(expected));
  expect(screen.getByTestId("qr").getAttribute("viewBox")).toBe("0 0 37 37");
});

it("has room for long links", () => {
  expect(darkModules(`https://drag.example.org/below/a/path/r/room#${"x".repeat(300)}`).size).toBeGreaterThan(1_000);
});
