/** The region of similar colour around a place, and its outline as the points of a filled stroke; pure. */

import type { Size } from "./geometry.ts";
import type { XY } from "./protocol.ts";

/** One byte a pixel, row by row: 1 inside. */
export interface Region extends Size {
  readonly inside: Uint8Array;
}

/** Holes smaller than this share of the picture are filled, and smaller islands dropped. */
const MIN_AREA = 0.0005;

/**
 * The pixels that are connected with `seed` and differ from it by at most `tolerance` in every channel.
 *
 * @param data RGBA, row by row.
 * @param tolerance in [0, 1].
 */
export function similarRegion(
  { data, width, height }: Pick<ImageData, "data" | "width" | "height">,
  [seedX, seedY]: XY,
  tolerance: number,
): Region {
  const seed = seedY * width + seedX;
  const colour = [0, 1, 2].map((channel) => data[seed * 4 + channel] ?? 0);
  const limit = tolerance * 255;
  const isSimilar = (pixel: number) =>
    colour.every((value, channel) => Math.abs((data[pixel * 4 + channel] ?? 0) - value) <= limit);
  const inside = new Uint8Array(width * height);
  fill(inside, { width, height }, seed, 1, isSimilar);
  fillHoles(inside, { width, height });
  return { inside, width, height };
}

/** Fills holes that are too small to be meant. */
function fillHoles(inside: Uint8Array, size: Size): void {
  const minimum = MIN_AREA * inside.length;
  const seen = Uint8Array.from(inside);
  for (let pixel = 0; pixel < seen.length; pixel++) {
    if (seen[pixel] !== 0) continue;
    const hole = fill(seen, size, pixel, 1, () => true);
    if (hole.length < minimum) for (const one of hole) inside[one] = 1;
  }
}

/** Sets the pixels that are 0, connected with `start` and `belong`, to `value`. Returns them. */
function fill(
  pixels: Uint8Array,
  { width, height }: Size,
  start: number,
  value: number,
  belongs: (pixel: number) => boolean,
): readonly number[] {
  const found = [start];
  pixels[start] = value;
  const visit = (pixel: number) => {
    if (pixels[pixel] !== 0 || !belongs(pixel)) return;
    pixels[pixel] = value;
    found.push(pixel);
  };
  // The list grows while it is read.
  for (let next = 0; next < found.length; next++) {
    const pixel = found[next] ?? 0;
    const x = pixel % width;
    if (x > 0) visit(pixel - 1);
    if (x < width - 1) visit(pixel + 1);
    if (pixel >= width) visit(pixel - width);
    if (pixel < width * (height - 1)) visit(pixel + width);
  }
  return found;
}

/**
 * The outline of a region as one closed line that encloses it by the even-odd rule: from each ring to the next and back,
 * so that the ways between them cancel out. In corners of pixels, (0, 0) to (width, height); at most `maxPoints`.
 */
export function outlineOf(region: Region, maxPoints: number): readonly XY[] {
  const rings = ringsOf(region);
  for (let tolerance = 0.75; ; tolerance *= 1.5) {
    const simple = rings.map((ring) => simplifiedRing(ring, tolerance)).filter((ring) => ring.length > 2);
    const joined = join(simple);
    if (joined.length <= maxPoints) return joined;
  }
}

function join(rings: readonly (readonly XY[])[]): readonly XY[] {
  const starts = rings.flatMap((ring) => ring.slice(0, 1));
  const there = rings.flatMap((ring) => [...ring, ...ring.slice(0, 1)]);
  return [...there, ...starts.slice(0, -1).reverse()];
}

/** The borders between inside and outside, each a closed line along the edges of pixels. */
function ringsOf({ inside, width, height }: Region): readonly (readonly XY[])[] {
  const isInside = (x: number, y: number) => x >= 0 && y >= 0 && x < width && y < height && inside[y * width + x] === 1;
  // Directed so that the inside is on the right. From each corner at most two edges start.
  const edges = new Map<number, number[]>();
  const corner = (x: number, y: number) => y * (width + 1) + x;
  const add = (from: number, to: number) => {
    const others = edges.get(from);
    if (others === undefined) edges.set(from, [to]);
    else others.push(to);
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!isInside(x, y)) continue;
      if (!isInside(x, y - 1)) add(corner(x, y), corner(x + 1, y));
      if (!isInside(x + 1, y)) add(corner(x + 1, y), corner(x + 1, y + 1));
      if (!isInside(x, y + 1)) add(corner(x + 1, y + 1), corner(x, y + 1));
      if (!isInside(x - 1, y)) add(corner(x, y + 1), corner(x, y));
    }
  }
  const rings: XY[][] = [];
  for (const start of edges.keys()) {
    while ((edges.get(start)?.length ?? 0) > 0) {
      const ring: XY[] = [];
      let at = start;
      do {
        ring.push([at % (width + 1), Math.floor(at / (width + 1))]);
        at = edges.get(at)?.pop() ?? start;
      } while (at !== start);
      rings.push(ring);
    }
  }
  return rings;
}

/** A closed line with fewer points, none of which is further than `tolerance` from it. */
function simplifiedRing(ring: readonly XY[], tolerance: number): readonly XY[] {
  const half = Math.floor(ring.length / 2);
  const first = simplified(ring.slice(0, half + 1), tolerance);
  const second = simplified([...ring.slice(half), ...ring.slice(0, 1)], tolerance);
  return [...first.slice(0, -1), ...second.slice(0, -1)];
}

/** Douglas and Peucker's algorithm, with a stack of its own: outlines are long. */
function simplified(line: readonly XY[], tolerance: number): readonly XY[] {
  const kept = new Uint8Array(line.length);
  kept[0] = kept[line.length - 1] = 1;
  const spans: [number, number][] = [[0, line.length - 1]];
  for (let span = spans.pop(); span !== undefined; span = spans.pop()) {
    const [from, to] = span;
    let [furthest, distance] = [from, tolerance];
    for (let index = from + 1; index < to; index++) {
      const away = distanceToLine(line[index], line[from], line[to]);
      if (away > distance) [furthest, distance] = [index, away];
    }
    if (furthest === from) continue;
    kept[furthest] = 1;
    spans.push([from, furthest], [furthest, to]);
  }
  return line.filter((_, index) => kept[index] === 1);
}

function distanceToLine([x, y]: XY = [0, 0], [ax, ay]: XY = [0, 0], [bx, by]: XY = [0, 0]): number {
  const length = Math.hypot(bx - ax, by - ay);
  if (length === 0) return Math.hypot(x - ax, y - ay);
  return Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length;
}
