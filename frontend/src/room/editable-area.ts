/** Whether a place may change, from the layers of the mask; the server's rasteriser is the one that counts. */

import type { MaskLayer, Stroke, XY } from "./protocol.ts";

/** Where the border of a grown area is looked for. */
const DIRECTIONS = Array.from({ length: 16 }, (_, index): XY => {
  const angle = (index * Math.PI) / 8;
  return [Math.cos(angle), Math.sin(angle)];
});

/** Whether the layers are painted on white: so they are if the first one that paints erases. */
export function startsWhite(layers: readonly MaskLayer[], current: Pick<Stroke, "mode"> | null): boolean {
  const first = layers.find(({ type }) => type !== "grow");
  if (first === undefined && current === null) return true;
  return first === undefined ? current?.mode === "erase" : first.type === "stroke" && first.mode === "erase";
}

/** `isWhite` looks into a loaded mask. */
export function isEditable(
  layers: readonly MaskLayer[],
  place: XY,
  isWhite: (sha256: string, place: XY) => boolean,
): boolean {
  return layers.length === 0 || isEditableAt(layers, place, isWhite);
}

/** From the top down: most layers say for many places that it is theirs alone to decide. */
function isEditableAt(
  layers: readonly MaskLayer[],
  place: XY,
  isWhite: (sha256: string, place: XY) => boolean,
): boolean {
  let inverted = false;
  for (let index = layers.length - 1; index >= 0; index--) {
    const layer = layers[index];
    if (layer === undefined) continue;
    if (layer.type === "invert") inverted = !inverted;
    else if (layer.type === "raster") return isWhite(layer.sha256, place) !== inverted;
    else if (layer.type === "grow") {
      const { below, pixels } = growthAt(layers, index);
      const editable = (at: XY) => isEditableAt(layers.slice(0, below), at, isWhite);
      const around = DIRECTIONS.map(([dx, dy]): XY => [place[0] + dx * pixels, place[1] + dy * pixels]);
      const found = pixels >= 0 ? [place, ...around].some(editable) : [place, ...around].every(editable);
      return found !== inverted;
    } else if (covers(layer, place)) return (layer.mode === "paint") !== inverted;
  }
  return startsWhite(layers, null) !== inverted;
}

/** A growth together with those of the same sign right below it. */
function growthAt(layers: readonly MaskLayer[], index: number): { readonly below: number; readonly pixels: number } {
  let [below, pixels] = [index + 1, 0];
  for (let layer = layers[index]; layer?.type === "grow" && layer.pixels * pixels >= 0; layer = layers[below - 1]) {
    pixels += layer.pixels;
    below -= 1;
  }
  return { below, pixels };
}

function covers({ points, radius, fill = false }: Stroke, place: XY): boolean {
  if (fill) return encloses(points, place);
  return points.some((point, index) => distanceToSegment(place, points[index - 1] ?? point, point) <= radius);
}

/** Whether a closed line encloses a place, by the even-odd rule. */
function encloses(points: readonly XY[], [x, y]: XY): boolean {
  let inside = false;
  points.forEach(([bx, by], index) => {
    const [ax, ay] = points[index === 0 ? points.length - 1 : index - 1] ?? [0, 0];
    if (ay > y !== by > y && x < ax + ((y - ay) / (by - ay)) * (bx - ax)) inside = !inside;
  });
  return inside;
}

function distanceToSegment([x, y]: XY, [ax, ay]: XY, [bx, by]: XY): number {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const along = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length));
  return Math.hypot(ax + along * dx - x, ay + along * dy - y);
}
