/** A magnifier beside the finger, which hides what it places. */

import { magnified } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import { drawBrush, drawCrosshair } from "./draw-cursors.ts";
import { drawPoints } from "./draw-points.ts";
import type { PointerScene } from "./scene.ts";
import { fillDisc, strokeRing } from "./shapes.ts";

// In CSS pixels.
const RADIUS = 54;
const MARGIN = 8;
/** From the finger's middle to the loupe's. */
const AWAY = 104;
const ZOOM = 2;

/** `picture` is the canvas below, as large as this one. */
export function drawLoupe(
  context: CanvasRenderingContext2D,
  scene: PointerScene,
  finger: XY,
  picture: HTMLCanvasElement,
): void {
  const { density, canvas } = scene;
  const middle = loupePlace(finger, canvas.width);
  context.save();
  fillDisc(context, middle, RADIUS + 3, "#fff");
  context.beginPath();
  context.arc(...middle, RADIUS, 0, 2 * Math.PI);
  context.clip();
  context.fillStyle = "#888";
  context.fill();
  const half = RADIUS / ZOOM;
  const source = [finger[0] - half, finger[1] - half, 2 * half, 2 * half].map((length) => length * density);
  const [sx = 0, sy = 0, width = 0, height = 0] = source;
  context.drawImage(picture, sx, sy, width, height, middle[0] - RADIUS, middle[1] - RADIUS, 2 * RADIUS, 2 * RADIUS);
  const within = { ...scene, view: magnified(scene.view, finger, middle, ZOOM) };
  drawPoints(context, within);
  if (scene.brush === null) drawCrosshair(context, middle, scene.accent);
  else drawBrush(context, within.view, scene.brush);
  context.restore();
  strokeRing(context, middle, RADIUS + 1.5, "rgb(0 0 0 / 0.3)", 1);
}

/** Above the finger; beside it where the canvas ends above. */
export function loupePlace([x, y]: XY, width: number): XY {
  const room = RADIUS + MARGIN;
  if (y - AWAY >= room) return [Math.min(Math.max(x, room), Math.max(room, width - room)), y - AWAY];
  return [x > width / 2 ? x - AWAY : x + AWAY, Math.max(y, room)];
}
