/** The canvas as a function of a scene: the same scene gives the same picture. Nothing here reads the store. */

import { arrow, toCanvas } from "./geometry.ts";
import type { End, Size, View } from "./geometry.ts";
import type { MaskPicture } from "./mask.ts";
import type { XY } from "./protocol.ts";
import type { Selection, ShownDrag, ShownPerson } from "./store.ts";

export interface Scene {
  /** In CSS pixels. */
  readonly canvas: Size;
  /** Device pixels to a CSS pixel. */
  readonly density: number;
  readonly view: View;
  readonly picture: Size;
  readonly base: CanvasImageSource | null;
  /** A preview over the base, or null. Where a region is painted, it is shown there alone, as the result will be. */
  readonly preview: CanvasImageSource | null;
  /** A guess over the base, transparent where it says nothing; shown like a preview. */
  readonly guess: Guessed | null;
  /** Beside the split lies the picture as it was uploaded; `at` is in [0, 1] of the picture's width. */
  readonly split: { readonly at: number; readonly original: CanvasImageSource } | null;
  readonly mask: MaskPicture | null;
  /** How the mask shows: strengths in [0, 1] of the tint inside the region, the veil outside it and its outline. */
  readonly shade: Shade;
  readonly drags: readonly ShownDrag[];
  readonly half: XY | null;
  /** From the half-made handle to the pointer. */
  readonly reach: XY | null;
  readonly selected: Selection | null;
  readonly hovered: Selection | null;
  readonly crosshair: XY | null;
  /** The brush under the pointer, in pixels of the picture; null for the other tools. */
  readonly brush: { readonly at: XY; readonly radius: number; readonly softness: number } | null;
  readonly people: readonly ShownPerson[];
  readonly accent: string;
  readonly ground: string;
}

/** A new one for every guess, though they may share the canvas. */
export interface Guessed {
  readonly canvas: HTMLCanvasElement;
}

export interface Shade {
  readonly inside: number;
  readonly outside: number;
  readonly outline: number;
}

/** Dark enough for white numbers (4.5 : 1), told apart by people who see fewer colours as far as eight can be. */
export const COLOURS = [
  "#d6293e",
  "#0a66c2",
  "#18794e",
  "#8e4ec6",
  "#b54708",
  "#0f766e",
  "#c2257b",
  "#5b6270",
] as const;

export function colourOf(n: number): string {
  return COLOURS[(n - 1) % COLOURS.length] ?? COLOURS[0];
}

/** Enlarged this many times and more, pixels are shown as squares. */
const PIXELS = 9;

/** Radii in CSS pixels. */
const HANDLE = 11;
const TARGET = 9;

/** What was composed for the last drawings; most need the same again. */
const kept = new Map<string, { readonly of: readonly unknown[]; readonly canvas: HTMLCanvasElement }>();

export function draw(context: CanvasRenderingContext2D, scene: Scene): void {
  const { canvas, density, view, picture } = scene;
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  // From here on one looks at the pixels themselves.
  context.imageSmoothingEnabled = view.scale < PIXELS;
  context.imageSmoothingQuality = "high";
  const area = [view.x, view.y, picture.width * view.scale, picture.height * view.scale] as const;
  if (scene.base) context.drawImage(scene.base, ...area);
  const over = scene.preview ?? scene.guess?.canvas;
  if (over) {
    const masked = scene.mask === null ? over : cut(over, scene.mask, scene.preview ?? scene.guess);
    context.drawImage(masked, ...area);
  }
  if (scene.split !== null) drawSplit(context, scene.split, area);
  if (scene.mask !== null) drawMask(context, scene, scene.mask, area);
  for (const drag of scene.drags) drawTrail(context, view, drag);
  for (const drag of scene.drags) drawArrow(context, view, drag);
  for (const drag of scene.drags) drawTarget(context, scene, drag);
  for (const drag of scene.drags) drawHandle(context, scene, drag);
  if (scene.half !== null) drawHalf(context, scene, scene.half);
  for (const person of scene.people) drawPerson(context, scene, person);
  if (scene.brush !== null) drawBrush(context, view, scene.brush);
  if (scene.crosshair !== null) drawCrosshair(context, toCanvas(view, scene.crosshair), scene.accent);
}

function cut(picture: CanvasImageSource, mask: MaskPicture, of: unknown): HTMLCanvasElement {
  return compose("cut", [of, mask], mask.region, (context, width, height) => {
    context.drawImage(picture, 0, 0, width, height);
    context.globalCompositeOperation = "destination-in";
    context.drawImage(mask.region, 0, 0);
  });
}

function drawSplit(
  context: CanvasRenderingContext2D,
  split: NonNullable<Scene["split"]>,
  [x, y, width, height]: readonly [number, number, number, number],
): void {
  context.save();
  context.beginPath();
  context.rect(x, y, width * split.at, height);
  context.clip();
  context.drawImage(split.original, x, y, width, height);
  context.restore();
}

function drawMask(
  context: CanvasRenderingContext2D,
  scene: Scene,
  mask: MaskPicture,
  area: readonly [number, number, number, number],
): void {
  context.save();
  context.beginPath();
  context.rect(...area);
  context.clip();
  const lay = (name: keyof Shade, how: "source-in" | "source-out", colour: string) => {
    const shape = name === "outline" ? mask.outline : mask.region;
    if (scene.shade[name] === 0) return;
    const wash = compose(name, [mask, colour], shape, (inner, width, height) => {
      inner.drawImage(shape, 0, 0);
      inner.globalCompositeOperation = how;
      inner.fillStyle = colour;
      inner.fillRect(0, 0, width, height);
    });
    context.globalAlpha = scene.shade[name];
    context.drawImage(wash, ...area);
  };
  lay("outside", "source-out", scene.ground);
  lay("inside", "source-in", scene.accent);
  lay("outline", "source-in", scene.accent);
  context.restore();
}

/** Paints on a canvas of its own, as large as `like`, unless it was last made `of` the same things. */
function compose(
  name: string,
  of: readonly unknown[],
  like: Size,
  paint: (context: CanvasRenderingContext2D, width: number, height: number) => void,
): HTMLCanvasElement {
  const before = kept.get(name);
  if (before?.of.every((thing, index) => thing === of[index])) return before.canvas;
  const canvas = before?.canvas ?? window.document.createElement("canvas");
  canvas.width = like.width;
  canvas.height = like.height;
  const context = canvas.getContext("2d");
  if (context !== null) paint(context, like.width, like.height);
  kept.set(name, { of, canvas });
  return canvas;
}

function drawTrail(context: CanvasRenderingContext2D, view: View, drag: ShownDrag): void {
  if (drag.trail.length < 2) return;
  context.save();
  context.lineJoin = context.lineCap = "round";
  path(
    context,
    drag.trail.map((place) => toCanvas(view, place)),
  );
  context.strokeStyle = "rgb(255 255 255 / 0.7)";
  context.lineWidth = 4;
  context.stroke();
  context.strokeStyle = colourOf(drag.n);
  context.globalAlpha = 0.75;
  context.lineWidth = 2;
  context.stroke();
  context.restore();
}

function drawArrow(context: CanvasRenderingContext2D, view: View, drag: ShownDrag): void {
  const shape = arrow(toCanvas(view, drag.handle), toCanvas(view, drag.target), HANDLE + 2, TARGET + 3, 9);
  if (shape === null) return;
  context.save();
  context.lineCap = context.lineJoin = "round";
  for (const [colour, width] of [
    ["rgb(255 255 255 / 0.9)", 5],
    [colourOf(drag.n), 2.25],
  ] as const) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    path(context, [shape.from, shape.to]);
    context.stroke();
    path(context, [shape.head[0], shape.to, shape.head[1]]);
    context.stroke();
  }
  context.restore();
}

function drawTarget(context: CanvasRenderingContext2D, scene: Scene, drag: ShownDrag): void {
  const [x, y] = toCanvas(scene.view, drag.target);
  const emphasis = emphasisOf(scene, drag.id, "target");
  if (emphasis) ring(context, x, y, TARGET + 6, scene.accent, 2.5);
  const radius = TARGET + (emphasis ? 1 : 0);
  context.fillStyle = "rgb(255 255 255 / 0.35)";
  disc(context, x, y, radius);
  ring(context, x, y, radius, "#fff", 5);
  ring(context, x, y, radius, colourOf(drag.n), 2.5);
  context.fillStyle = "#fff";
  disc(context, x, y, 4);
  context.fillStyle = colourOf(drag.n);
  disc(context, x, y, 2.5);
}

function drawHandle(context: CanvasRenderingContext2D, scene: Scene, drag: ShownDrag): void {
  const at = toCanvas(scene.view, drag.handle);
  const emphasis = emphasisOf(scene, drag.id, "handle");
  if (emphasis) ring(context, ...at, HANDLE + 6, scene.accent, 2.5);
  knob(context, at, HANDLE + (emphasis ? 1 : 0), colourOf(drag.n), String(drag.n));
  if (!drag.waiting) return;
  // Not sent yet: the others do not see it so.
  context.save();
  context.setLineDash([4, 3]);
  ring(context, ...at, HANDLE + 4, "#fff", 3);
  ring(context, ...at, HANDLE + 4, "#8a5a00", 1.75);
  context.restore();
}

function drawHalf(context: CanvasRenderingContext2D, scene: Scene, half: XY): void {
  const at = toCanvas(scene.view, half);
  const n = scene.drags.length + 1;
  if (scene.reach !== null) {
    const to = toCanvas(scene.view, scene.reach);
    const shape = arrow(at, to, HANDLE + 2, 3, 9);
    if (shape !== null) {
      context.save();
      context.lineCap = "round";
      context.setLineDash([1, 7]);
      for (const [colour, width] of [
        ["rgb(255 255 255 / 0.9)", 5],
        [colourOf(n), 2.5],
      ] as const) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        path(context, [shape.from, shape.to]);
        context.stroke();
      }
      context.restore();
    }
  }
  ring(context, ...at, HANDLE + 6, colourOf(n), 1.5);
  knob(context, at, HANDLE, colourOf(n), String(n));
}

function knob(context: CanvasRenderingContext2D, [x, y]: XY, radius: number, colour: string, label: string): void {
  context.save();
  context.shadowColor = "rgb(0 0 0 / 0.35)";
  context.shadowBlur = 6;
  context.shadowOffsetY = 1;
  context.fillStyle = "#fff";
  disc(context, x, y, radius + 2);
  context.restore();
  context.fillStyle = colour;
  disc(context, x, y, radius);
  context.fillStyle = "#fff";
  context.font = `600 ${label.length > 1 ? 10 : 12}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(label, x, y + 0.5);
}

function drawBrush(context: CanvasRenderingContext2D, view: View, brush: NonNullable<Scene["brush"]>): void {
  const [x, y] = toCanvas(view, brush.at);
  const radius = brush.radius * view.scale;
  ring(context, x, y, radius, "rgb(0 0 0 / 0.55)", 3);
  ring(context, x, y, radius, "#fff", 1.5);
  if (brush.softness === 0) return;
  context.save();
  context.setLineDash([3, 4]);
  ring(context, x, y, radius * (1 - brush.softness), "rgb(0 0 0 / 0.55)", 2.5);
  ring(context, x, y, radius * (1 - brush.softness), "#fff", 1);
  context.restore();
}

/** Somebody else: what they have selected, and their cursor with their name. */
function drawPerson(context: CanvasRenderingContext2D, scene: Scene, person: ShownPerson): void {
  const taken = scene.drags.find((drag) => drag.id === person.selected);
  if (taken !== undefined) {
    for (const end of ["handle", "target"] as const) {
      const [x, y] = toCanvas(scene.view, taken[end]);
      ring(context, x, y, (end === "handle" ? HANDLE : TARGET) + 6, "#fff", 4.5);
      ring(context, x, y, (end === "handle" ? HANDLE : TARGET) + 6, person.colour, 2.5);
    }
  }
  if (person.cursor === null) return;
  const [x, y] = toCanvas(scene.view, person.cursor);
  context.save();
  context.lineJoin = "round";
  path(context, [
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
  if (person.busy) ring(context, x, y, 5, person.colour, 2);
  context.font = "600 11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "left";
  const width = Math.min(context.measureText(person.label).width, 150);
  context.beginPath();
  context.roundRect(x + 12, y + 14, width + 12, 19, 9.5);
  context.fill();
  context.fillStyle = "#fff";
  context.fillText(person.label, x + 18, y + 24, 150);
  context.restore();
}

function drawCrosshair(context: CanvasRenderingContext2D, [x, y]: XY, accent: string): void {
  context.save();
  context.lineCap = "round";
  for (const [colour, width] of [
    ["#fff", 5],
    [accent, 2.25],
  ] as const) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    for (const [dx, dy] of [
      [1, 0],
      [-1, 0],
      [0, 1],
      [0, -1],
    ] as const) {
      path(context, [
        [x + dx * 5, y + dy * 5],
        [x + dx * 18, y + dy * 18],
      ]);
      context.stroke();
    }
  }
  context.restore();
}

function emphasisOf(scene: Scene, id: string, end: End): boolean {
  return [scene.selected, scene.hovered].some((one) => one?.id === id && one.end === end);
}

function disc(context: CanvasRenderingContext2D, x: number, y: number, radius: number): void {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function ring(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
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

function path(context: CanvasRenderingContext2D, places: readonly XY[]): void {
  context.beginPath();
  places.forEach(([x, y], index) => (index === 0 ? context.moveTo(x, y) : context.lineTo(x, y)));
}
