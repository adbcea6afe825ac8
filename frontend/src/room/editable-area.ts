/** Whether a place may change, from the layers of the mask; the server's rasteriser is the one that counts. */

import type { MaskLayer, Stroke, XY } from "./protocol.ts";

/** Whether the layers are painted on white: so they are if the first one erases. */
export function startsWhite(layers: readonly MaskLayer[], current: Pick<Stroke, "mode"> | null): boolean {
  const [first] = layers;
  return first === undefined ? current?.mode === "erase" : first.type === "stroke" && first.mode === "erase";
}

/** `isWhite` looks into a loaded mask. */
export function isEditable(
  layers: readonly MaskLayer[],
  place: XY,
  isWhite: (sha256: string, place: XY) => boolean,
): boolean {
  if (layers.length === 0) return true;
  let editable = startsWhite(layers, null);
  for (const layer of layers) {
    if (layer.type === "invert") editable = !editable;
    else if (layer.type === "raster") editable = isWhite(layer.sha256, place);
    else if (covers(layer, place)) editable = layer.mode === "paint";
  }
  return editable;
}

function covers({ points, radius }: Stroke, place: XY): boolean {
  return points.some((point, index) => distanceToSegment(place, points[index - 1] ?? point, point) <= radius);
}

function distanceToSegment([x, y]: XY, [ax, ay]: XY, [bx, by]: XY): number {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const along = length === 0 ? 0 : Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / length));
  return Math.hypot(ax + along * dx - x, ay + along * dy - y);
}
