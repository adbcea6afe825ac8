/** Draws what points at the picture: the brush, the keyboard's crosshair and other people's cursors. */

import { toCanvas } from "../room/geometry.ts";
import type { View } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import type { ShownPerson } from "../room/store.ts";
import type { PointerScene } from "./scene.ts";
import { strokeOutlined, strokeRing, tracePath } from "./shapes.ts";

const MAX_LABEL_WIDTH = 150;

export function drawBrush(
  context: CanvasRenderingContext2D,
  view: View,
  brush: NonNullable<PointerScene["brush"]>,
): void {
  const at = toCanvas(view, brush.at);
  const radius = brush.radius * view.scale;
  strokeRing(context, at, radius, "rgb(0 0 0 / 0.55)", 3);
  strokeRing(context, at, radius, "#fff", 1.5);
  if (brush.softness === 0) return;
  context.save();
  context.setLineDash([3, 4]);
  strokeRing(context, at, radius * (1 - brush.softness), "rgb(0 0 0 / 0.55)", 2.5);
  strokeRing(context, at, radius * (1 - brush.softness), "#fff", 1);
  context.restore();
}

export function drawCrosshair(context: CanvasRenderingContext2D, [x, y]: XY, accent: string): void {
  const arms = (
    [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ] as const
  ).map(([dx, dy]): readonly XY[] => [
    [x + dx * 5, y + dy * 5],
    [x + dx * 18, y + dy * 18],
  ]);
  context.save();
  context.lineCap = "round";
  strokeOutlined(context, arms, accent, 2.25, "#fff");
  context.restore();
}

/** Another person's cursor with their name. */
export function drawCursor(context: CanvasRenderingContext2D, view: View, person: ShownPerson, cursor: XY): void {
  const [x, y] = toCanvas(view, cursor);
  context.save();
  context.lineJoin = "round";
  tracePath(context, [
    [x, y],
    [x + 4.5, y + 15],
    [x + 8, y + 8],
    [x + 15, y + 4.5],
  ]);
  context.closePath();
  context.fillStyle = person.colour;
  context.strokeStyle = "#fff";
  context.lineWidth = 2.5;
  context.stroke();
  context.fill();
  if (person.busy) strokeRing(context, [x, y], 5, person.colour, 2);
  context.font = "600 11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  const width = Math.min(context.measureText(person.label).width, MAX_LABEL_WIDTH);
  context.beginPath();
  context.roundRect(x + 12, y + 14, width + 12, 19, 9.5);
  context.fill();
  context.fillStyle = "#fff";
  context.fillText(person.label, x + 18, y + 24, MAX_LABEL_WIDTH);
  context.restore();
}
