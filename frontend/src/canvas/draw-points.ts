/** Draws handles, targets, arrows and trails. */

import { arrow, toCanvas } from "../room/geometry.ts";
import type { DragEnd, View } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import type { ShownDrag, ShownPerson, ShownPin } from "../room/store.ts";
import { pointColour } from "../ui/colours.ts";
import type { PointerScene } from "./scene.ts";
import { fillDisc, strokeOutlined, strokeRing, tracePath } from "./shapes.ts";

// Radii in CSS pixels.
const HANDLE_RADIUS = 11;
const TARGET_RADIUS = 9;
const PIN_RADIUS = 9;
const RING_GAP = 6;
const ARROW_HEAD = 9;

const PIN_COLOUR = "#22262e";
const WAITING_COLOUR = "#8a5a00";

export function drawPoints(context: CanvasRenderingContext2D, scene: PointerScene): void {
  for (const pin of scene.pins) drawPin(context, scene, pin);
  for (const drag of scene.drags) drawTrail(context, scene.view, drag);
  for (const drag of scene.drags) drawArrow(context, scene.view, drag);
  for (const drag of scene.drags) drawTarget(context, scene, drag);
  for (const drag of scene.drags) drawHandle(context, scene, drag);
  if (scene.pendingHandle !== null) drawPendingHandle(context, scene, scene.pendingHandle);
}

/** A dark square that stands on its corner, so that it differs from points by more than colour. */
function drawPin(context: CanvasRenderingContext2D, scene: PointerScene, pin: ShownPin): void {
  const [x, y] = toCanvas(scene.view, pin.at);
  const diamond = (radius: number, colour: string) => {
    tracePath(context, [
      [x, y - radius],
      [x + radius, y],
      [x, y + radius],
      [x - radius, y],
    ]);
    context.closePath();
    context.fillStyle = colour;
    context.fill();
  };
  if (pin.id === scene.selectedPin) strokeRing(context, [x, y], PIN_RADIUS + RING_GAP, scene.accent, 2.5);
  diamond(PIN_RADIUS + 3, "#fff");
  diamond(PIN_RADIUS, PIN_COLOUR);
  fillDisc(context, [x, y], 2.5, "#fff");
}

/** Rings around the drag that another person has selected. */
export function drawSelectionOf(context: CanvasRenderingContext2D, scene: PointerScene, person: ShownPerson): void {
  const drag = scene.drags.find(({ id }) => id === person.selected);
  if (drag === undefined) return;
  for (const end of ["handle", "target"] as const) {
    const at = toCanvas(scene.view, drag[end]);
    const radius = (end === "handle" ? HANDLE_RADIUS : TARGET_RADIUS) + RING_GAP;
    strokeRing(context, at, radius, "#fff", 4.5);
    strokeRing(context, at, radius, person.colour, 2.5);
  }
}

function drawTrail(context: CanvasRenderingContext2D, view: View, drag: ShownDrag): void {
  if (drag.trail.length < 2) return;
  context.save();
  context.lineJoin = context.lineCap = "round";
  tracePath(
    context,
    drag.trail.map((place) => toCanvas(view, place)),
  );
  context.strokeStyle = "rgb(255 255 255 / 0.7)";
  context.lineWidth = 4;
  context.stroke();
  context.strokeStyle = pointColour(drag.number);
  context.globalAlpha = 0.75;
  context.lineWidth = 2;
  context.stroke();
  context.restore();
}

function drawArrow(context: CanvasRenderingContext2D, view: View, drag: ShownDrag): void {
  const [from, to] = [toCanvas(view, drag.handle), toCanvas(view, drag.target)];
  const shape = arrow(from, to, HANDLE_RADIUS + 2, TARGET_RADIUS + 3, ARROW_HEAD);
  if (shape === null) return;
  const lines = [
    [shape.from, shape.to],
    [shape.head[0], shape.to, shape.head[1]],
  ];
  context.save();
  context.lineCap = context.lineJoin = "round";
  strokeOutlined(context, lines, pointColour(drag.number), 2.25);
  context.restore();
}

function drawTarget(context: CanvasRenderingContext2D, scene: PointerScene, drag: ShownDrag): void {
  const at = toCanvas(scene.view, drag.target);
  const colour = pointColour(drag.number);
  const emphasised = isEmphasised(scene, drag.id, "target");
  if (emphasised) strokeRing(context, at, TARGET_RADIUS + RING_GAP, scene.accent, 2.5);
  const radius = TARGET_RADIUS + (emphasised ? 1 : 0);
  fillDisc(context, at, radius, "rgb(255 255 255 / 0.35)");
  strokeRing(context, at, radius, "#fff", 5);
  strokeRing(context, at, radius, colour, 2.5);
  fillDisc(context, at, 4, "#fff");
  fillDisc(context, at, 2.5, colour);
}

function drawHandle(context: CanvasRenderingContext2D, scene: PointerScene, drag: ShownDrag): void {
  const at = toCanvas(scene.view, drag.handle);
  const emphasised = isEmphasised(scene, drag.id, "handle");
  if (emphasised) strokeRing(context, at, HANDLE_RADIUS + RING_GAP, scene.accent, 2.5);
  drawNumberedDisc(context, at, HANDLE_RADIUS + (emphasised ? 1 : 0), drag.number);
  if (drag.waiting) drawWaitingRing(context, at);
}

/** The others don't see this change yet. */
function drawWaitingRing(context: CanvasRenderingContext2D, at: XY): void {
  context.save();
  context.setLineDash([4, 3]);
  strokeRing(context, at, HANDLE_RADIUS + 4, "#fff", 3);
  strokeRing(context, at, HANDLE_RADIUS + 4, WAITING_COLOUR, 1.75);
  context.restore();
}

function drawPendingHandle(context: CanvasRenderingContext2D, scene: PointerScene, handle: XY): void {
  const at = toCanvas(scene.view, handle);
  const number = scene.drags.length + 1;
  if (scene.pendingTarget !== null) {
    drawDottedLine(context, at, toCanvas(scene.view, scene.pendingTarget), pointColour(number));
  }
  strokeRing(context, at, HANDLE_RADIUS + RING_GAP, pointColour(number), 1.5);
  drawNumberedDisc(context, at, HANDLE_RADIUS, number);
}

function drawDottedLine(context: CanvasRenderingContext2D, from: XY, to: XY, colour: string): void {
  const shape = arrow(from, to, HANDLE_RADIUS + 2, 3, ARROW_HEAD);
  if (shape === null) return;
  context.save();
  context.lineCap = "round";
  context.setLineDash([1, 7]);
  strokeOutlined(context, [[shape.from, shape.to]], colour, 2.5);
  context.restore();
}

function drawNumberedDisc(context: CanvasRenderingContext2D, at: XY, radius: number, number: number): void {
  const label = String(number);
  context.save();
  context.shadowColor = "rgb(0 0 0 / 0.35)";
  context.shadowBlur = 6;
  context.shadowOffsetY = 1;
  fillDisc(context, at, radius + 2, "#fff");
  context.restore();
  fillDisc(context, at, radius, pointColour(number));
  context.fillStyle = "#fff";
  context.font = `600 ${label.length > 1 ? 10 : 12}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(label, at[0], at[1] + 0.5);
}

function isEmphasised(scene: PointerScene, id: string, end: DragEnd): boolean {
  return [scene.selected, scene.hovered].some((one) => one?.id === id && one.end === end);
}
