/** Shapes on a 2D canvas, in CSS pixels. */

import type { XY } from "../room/protocol.ts";

export function fillDisc(context: CanvasRenderingContext2D, [x, y]: XY, radius: number, colour: string): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
}

export function strokeRing(
  context: CanvasRenderingContext2D,
  [x, y]: XY,
  radius: number,
  colour: string,
  width: number,
): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

export function tracePath(context: CanvasRenderingContext2D, places: readonly XY[]): void {
  context.beginPath();
  places.forEach(([x, y], index) => {
    if (index === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  });
}

/** Lines that are visible on any picture: coloured, with a wider light edge. */
export function strokeOutlined(
  context: CanvasRenderingContext2D,
  lines: readonly (readonly XY[])[],
  colour: string,
  width: number,
  edge = "rgb(255 255 255 / 0.9)",
): void {
  for (const [strokeStyle, lineWidth] of [
    [edge, 5],
    [colour, width],
  ] as const) {
    context.strokeStyle = strokeStyle;
    context.lineWidth = lineWidth;
    for (const line of lines) {
      tracePath(context, line);
      context.stroke();
    }
  }
}
