/**
 * All geometry of the page, pure. Two planes: *picture* points are `XY` in pixels of the uploaded picture with the
 * origin at the centre of its top left pixel (so the picture spans -0.5 to width - 0.5); *canvas* points are `XY` in CSS
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

export type End = "handle" | "target";

/** The end of a drag as the page shows it. */
export interface Place {
  readonly id: string;
  readonly end: End;
  readonly at: XY;
}

export function toCanvas(view: View, [x, y]: XY): XY {
  return [(x + 0.5) * view.scale + view.x, (y + 0.5) * view.scale + view.y];
}

export function toPicture(view: View, [x, y]: XY): XY {
  return [(x - view.x) / view.scale - 0.5, (y - view.y) / view.scale - 0.5];
}

/** The largest view that shows the whole picture, centred, `margin` CSS pixels free around it, enlarged `most` times at most. */
export function fit(picture: Size, canvas: Size, margin: number, most = 4): View {
  const room = {
    width: Math.max(1, canvas.width - 2 * margin),
    height: Math.max(1, canvas.height - 2 * margin),
  };
  const scale = Math.min(room.width / picture.width, room.height / picture.height, most);
  return {
    scale,
    x: Math.round((canvas.width - picture.width * scale) / 2),
    y: Math.round((canvas.height - picture.height * scale) / 2),
  };
}

/** Smallest and largest enlargement, in CSS pixels to a pixel of the picture. */
export const ZOOM = { least: 0.02, most: 32 } as const;

/** The view after zooming by `factor`, with what is at the canvas point `at` staying there. */
export function zoomAt(view: View, at: XY, factor: number, picture: Size, canvas: Size): View {
  // What fits may be smaller than any zoom: then out goes no further than that.
  const least = Math.min(ZOOM.least, view.scale);
  const scale = clamp(view.scale * factor, least, Math.max(ZOOM.most, view.scale));
  const by = scale / view.scale;
  return keepInSight({ scale, x: at[0] - (at[0] - view.x) * by, y: at[1] - (at[1] - view.y) * by }, picture, canvas);
}

export function panBy(view: View, [dx, dy]: XY, picture: Size, canvas: Size): View {
  return keepInSight({ ...view, x: view.x + dx, y: view.y + dy }, picture, canvas);
}

/** The view moved so that at least `SIGHT` CSS pixels of the picture stay on the canvas each way. */
export function keepInSight(view: View, picture: Size, canvas: Size): View {
  const along = (offset: number, length: number, room: number) => {
    const least = Math.min(SIGHT, length, room);
    return clamp(offset, least - length, room - least);
  };
  return {
    scale: view.scale,
    x: along(view.x, picture.width * view.scale, canvas.width),
    y: along(view.y, picture.height * view.scale, canvas.height),
  };
}

const SIGHT = 64;

/** Two fingers: what was between them stays between them, and grows as they part. */
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

export function middle([ax, ay]: XY, [bx, by]: XY): XY {
  return [(ax + bx) / 2, (ay + by) / 2];
}

/** What a turn of the wheel asks for: a notched wheel and a pinch on a touchpad zoom, two fingers on a touchpad pan. */
export function wheelAsks(
  event: Pick<WheelEvent, "ctrlKey" | "metaKey" | "shiftKey" | "deltaX" | "deltaY" | "deltaMode">,
): { readonly kind: "zoom"; readonly factor: number } | { readonly kind: "pan"; readonly by: XY } {
  const unit = event.deltaMode === 0 ? 1 : event.deltaMode === 1 ? 16 : 240;
  const [dx, dy] = [event.deltaX * unit, event.deltaY * unit];
  if (event.ctrlKey || event.metaKey) return { kind: "zoom", factor: Math.exp(-clamp(dy, -120, 120) / 100) };
  if (event.shiftKey) return { kind: "pan", by: [-(dx || dy), 0] };
  const notched = dx === 0 && (event.deltaMode !== 0 || (Math.abs(dy) >= 50 && Number.isInteger(dy)));
  return notched ? { kind: "zoom", factor: Math.exp(-clamp(dy, -240, 240) / 500) } : { kind: "pan", by: [-dx, -dy] };
}

/** The nearest place inside the picture: from the centre of its first pixel to the centre of its last. */
export function clampToPicture(picture: Size, [x, y]: XY): XY {
  return [clamp(x, 0, picture.width - 1), clamp(y, 0, picture.height - 1)];
}

/** Whether a picture point lies on the picture, its outer half pixels included. */
export function isInside(picture: Size, [x, y]: XY): boolean {
  return x >= -0.5 && y >= -0.5 && x <= picture.width - 0.5 && y <= picture.height - 0.5;
}

export function clamp(value: number, least: number, most: number): number {
  return Math.min(Math.max(value, least), most);
}

export function distance([ax, ay]: XY, [bx, by]: XY): number {
  return Math.hypot(bx - ax, by - ay);
}

/** Whole tenths of a pixel: finer places are noise of the pointer and bytes on the wire. */
export function round([x, y]: XY): XY {
  return [Math.round(x * 10) / 10, Math.round(y * 10) / 10];
}

/**
 * The place nearest to `at` within `radius`, or null; all in one plane. Where two are equally near (within a CSS pixel),
 * the later one wins, as it is drawn on top.
 */
export function hit(places: readonly Place[], at: XY, radius: number): Place | null {
  let best: Place | null = null;
  let least = radius;
  for (const place of places) {
    const away = distance(place.at, at);
    if (away <= radius && (best === null || away <= least + 1)) {
      best = place;
      least = Math.min(least, away);
    }
  }
  return best;
}

/** A straight arrow from `from` to `to` that leaves `gapFrom` and `gapTo` free at its ends; null where nothing is left. */
export interface Arrow {
  readonly from: XY;
  readonly to: XY;
  readonly head: readonly [XY, XY];
}

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

/** How much of the way from `start` to `target` has been covered at `now`, in [0, 1]. */
export function covered(start: XY, now: XY, target: XY): number {
  const whole = distance(start, target);
  return whole === 0 ? 1 : clamp(1 - distance(now, target) / whole, 0, 1);
}

/** Pixels of the picture that one press of an arrow key moves: about a CSS pixel, and at least one of the picture's. */
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

/** Appends to a stroke unless the new point is nearer than `least` pixels to its last one. Returns a new list, or the same. */
export function extend(points: readonly XY[], point: XY, least: number): readonly XY[] {
  const last = points.at(-1);
  return last !== undefined && distance(last, point) < least ? points : [...points, point];
}
