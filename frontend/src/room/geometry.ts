/**
 * All geometry of the page, pure. There are two planes. *Picture* points are in pixels of the uploaded picture, with the
 * origin at the centre of its top left pixel, so the picture spans -0.5 to width - 0.5. *Canvas* points are in CSS
 * pixels from the canvas's top left corner.
 */

import type { XY } from "./protocol.ts";

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Where the picture lies: its top left corner at (x, y) in CSS pixels, `scale` CSS pixels to a pixel of the picture. */
export interface View {
  readonly scale: number;
  readonly x: number;
  readonly y: number;
}

/** The factor of one press of a zoom button or key, and of one notch of the wheel. */
export const ZOOM_STEP = 1.25;
/** About what systems scroll for one notch of the wheel, in CSS pixels. */
const NOTCH = 100;
/** Of one event; a free-spinning wheel reports many. */
const MAX_NOTCHES = 3;

export type DragEnd = "handle" | "target";

/** A drag's handle and target. */
export interface DragEnds {
  readonly handle: XY;
  readonly target: XY;
}

/** One end of a drag that a press can hit. */
export interface HitTarget {
  readonly id: string;
  readonly end: DragEnd;
  readonly at: XY;
}

export function toCanvas(view: View, [x, y]: XY): XY {
  return [(x + 0.5) * view.scale + view.x, (y + 0.5) * view.scale + view.y];
}

export function toPicture(view: View, [x, y]: XY): XY {
  return [(x - view.x) / view.scale - 0.5, (y - view.y) / view.scale - 0.5];
}

/** The largest centred view of the whole picture with `margin` CSS pixels around it and a scale of at most `maxScale`. */
export function fit(picture: Size, canvas: Size, margin: number, maxScale = 4): View {
  const free = {
    width: Math.max(1, canvas.width - 2 * margin),
    height: Math.max(1, canvas.height - 2 * margin),
  };
  const scale = Math.min(free.width / picture.width, free.height / picture.height, maxScale);
  return {
    scale,
    x: Math.round((canvas.width - picture.width * scale) / 2),
    y: Math.round((canvas.height - picture.height * scale) / 2),
  };
}

// CSS pixels to a pixel of the picture.
const MIN_SCALE = 0.02;
const MAX_SCALE = 32;
/** CSS pixels of the picture that stay on the canvas. */
const MIN_IN_SIGHT = 64;

/** The view after zooming by `factor`; the canvas point `at` keeps showing the same place. */
export function zoomAt(view: View, at: XY, factor: number, picture: Size, canvas: Size): View {
  // Fitting a huge picture may scale it further down than zooming does.
  const scale = clamp(view.scale * factor, Math.min(MIN_SCALE, view.scale), Math.max(MAX_SCALE, view.scale));
  const by = scale / view.scale;
  return keepInSight({ scale, x: at[0] - (at[0] - view.x) * by, y: at[1] - (at[1] - view.y) * by }, picture, canvas);
}

export function panBy(view: View, [dx, dy]: XY, picture: Size, canvas: Size): View {
  return keepInSight({ ...view, x: view.x + dx, y: view.y + dy }, picture, canvas);
}

/** The view, moved so that part of the picture stays on the canvas in both directions. */
export function keepInSight(view: View, picture: Size, canvas: Size): View {
  const along = (offset: number, length: number, canvasLength: number) => {
    const inSight = Math.min(MIN_IN_SIGHT, length, canvasLength);
    return clamp(offset, inSight - length, canvasLength - inSight);
  };
  return {
    scale: view.scale,
    x: along(view.x, picture.width * view.scale, canvas.width),
    y: along(view.y, picture.height * view.scale, canvas.height),
  };
}

/** The view after two fingers moved: what was between them stays between them. */
export function pinch(
  view: View,
  before: readonly [XY, XY],
  now: readonly [XY, XY],
  picture: Size,
  canvas: Size,
): View {
  const from = middle(...before);
  const to = middle(...now);
  const apart = distance(...before);
  const zoomed = zoomAt(view, from, apart < 1 ? 1 : distance(...now) / apart, picture, canvas);
  return panBy(zoomed, [to[0] - from[0], to[1] - from[1]], picture, canvas);
}

/** The view in which what `view` shows at `from` is at `to`, and everything around it `zoom` times as large. */
export function magnified(view: View, from: XY, to: XY, zoom: number): View {
  return { scale: view.scale * zoom, x: to[0] - (from[0] - view.x) * zoom, y: to[1] - (from[1] - view.y) * zoom };
}

export function middle([ax, ay]: XY, [bx, by]: XY): XY {
  return [(ax + bx) / 2, (ay + by) / 2];
}

/** What a wheel event means: notched wheels and pinches on a touchpad zoom, two fingers on a touchpad pan. */
export function wheelAction(
  event: Pick<WheelEvent, "ctrlKey" | "metaKey" | "shiftKey" | "deltaX" | "deltaY" | "deltaMode">,
): { readonly kind: "zoom"; readonly factor: number } | { readonly kind: "pan"; readonly by: XY } {
  const unit = event.deltaMode === 0 ? 1 : event.deltaMode === 1 ? NOTCH / 3 : NOTCH;
  const [dx, dy] = [event.deltaX * unit, event.deltaY * unit];
  const notched = dx === 0 && (event.deltaMode !== 0 || (Math.abs(dy) >= 50 && Number.isInteger(dy)));
  if (notched && !event.shiftKey) return { kind: "zoom", factor: ZOOM_STEP ** -notchesOf(dy) };
  if (event.ctrlKey || event.metaKey) return { kind: "zoom", factor: Math.exp(-clamp(dy, -120, 120) / 100) };
  if (event.shiftKey) return { kind: "pan", by: [-(dx || dy), 0] };
  return { kind: "pan", by: [-dx, -dy] };
}

/** The notches of a wheel's turn, whatever distance the system scrolls for one: from 1 to `MAX_NOTCHES`, signed. */
function notchesOf(dy: number): number {
  return Math.sign(dy) * clamp(Math.round(Math.abs(dy) / NOTCH), 1, MAX_NOTCHES);
}

/** The nearest place inside the picture: from the centre of its first pixel to the centre of its last. */
export function clampToPicture(picture: Size, [x, y]: XY): XY {
  return [clamp(x, 0, picture.width - 1), clamp(y, 0, picture.height - 1)];
}

/** Whether a picture point lies on the picture, its outer half pixels included. */
export function isInside(picture: Size, [x, y]: XY): boolean {
  return x >= -0.5 && y >= -0.5 && x <= picture.width - 0.5 && y <= picture.height - 0.5;
}

export function clamp(value: number, min: number, max: number): number {
  return Math.min(Math.max(value, min), max);
}

export function distance([ax, ay]: XY, [bx, by]: XY): number {
  return Math.hypot(bx - ax, by - ay);
}

/** To tenths of a pixel; anything finer is pointer noise. */
export function roundPlace([x, y]: XY): XY {
  return [Math.round(x * 10) / 10, Math.round(y * 10) / 10];
}

/** The nearest target within `radius` of `at`, all on one plane. Ties, within a pixel, go to the later one, drawn on top. */
export function hitTest(targets: readonly HitTarget[], at: XY, radius: number): HitTarget | null {
  let nearest: HitTarget | null = null;
  let nearestDistance = radius;
  for (const target of targets) {
    const away = distance(target.at, at);
    if (away <= radius && (nearest === null || away <= nearestDistance + 1)) {
      nearest = target;
      nearestDistance = Math.min(nearestDistance, away);
    }
  }
  return nearest;
}

export interface Arrow {
  readonly from: XY;
  readonly to: XY;
  readonly head: readonly [XY, XY];
}

/** A straight arrow that leaves a gap at either end; null if the gaps leave nothing. */
export function arrow(from: XY, to: XY, gapFrom: number, gapTo: number, head: number): Arrow | null {
  const length = distance(from, to);
  if (length <= gapFrom + gapTo + 1) return null;
  const ux = (to[0] - from[0]) / length;
  const uy = (to[1] - from[1]) / length;
  const tip: XY = [to[0] - ux * gapTo, to[1] - uy * gapTo];
  const size = Math.min(head, length - gapFrom - gapTo);
  return {
    from: [from[0] + ux * gapFrom, from[1] + uy * gapFrom],
    to: tip,
    head: [
      [tip[0] - ux * size - uy * size * 0.6, tip[1] - uy * size + ux * size * 0.6],
      [tip[0] - ux * size + uy * size * 0.6, tip[1] - uy * size - ux * size * 0.6],
    ],
  };
}

/** The share of the way from `start` to `target` that is done at `now`, in [0, 1]. */
export function progressOf(start: XY, now: XY, target: XY): number {
  const whole = distance(start, target);
  return whole === 0 ? 1 : clamp(1 - distance(now, target) / whole, 0, 1);
}

/** Pixels of the picture that an arrow key moves: about one CSS pixel, and at least one. */
export function keyStep(view: View): number {
  return Math.max(1, Math.round(1 / view.scale));
}

/** The direction of an arrow key, or null for any other key. */
export function arrowKey(key: string): XY | null {
  switch (key) {
    case "ArrowLeft":
      return [-1, 0];
    case "ArrowRight":
      return [1, 0];
    case "ArrowUp":
      return [0, -1];
    case "ArrowDown":
      return [0, 1];
    default:
      return null;
  }
}

/** The stroke with a point appended, unless that is within `minDistance` of its last one. */
export function extendStroke(points: readonly XY[], point: XY, minDistance: number): readonly XY[] {
  const last = points.at(-1);
  return last !== undefined && distance(last, point) < minDistance ? points : [...points, point];
}
