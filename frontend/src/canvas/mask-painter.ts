/**
 * Paints the mask for the canvas to show. The server's rasteriser is the one that counts; this one paints the same round
 * strokes for the eye, on a canvas with a fixed longest side.
 */

import { startsWhite } from "../room/editable-area.ts";
import type { Size } from "../room/geometry.ts";
import { MASK_SIDE } from "../room/mask-files.ts";
import type { MaskLayer, Stroke } from "../room/protocol.ts";

/** Width of the outline, in pixels of the mask's canvas. */
const OUTLINE_WIDTH = 2;
/** Rings that make up a soft edge: enough that none can be seen. */
const SOFT_RINGS = 20;
/** Eight directions. */
const DIRECTIONS = [0, 1, 2, 3, 4, 5, 6, 7].map((eighth) => {
  const angle = (eighth * Math.PI) / 4;
  return [Math.cos(angle), Math.sin(angle)] as const;
});

type StrokeShape = Omit<Stroke, "id" | "type">;

/** In pixels of the mask's canvas. */
export type Area = readonly [left: number, top: number, width: number, height: number];

/** A new object whenever its canvases have changed. */
export interface MaskPicture {
  /** Opaque where the picture may change. */
  readonly region: HTMLCanvasElement;
  /** Opaque along its border. */
  readonly outline: HTMLCanvasElement;
  /** All that differs from another mask of the same size, if that is known. */
  readonly changed?: { readonly since: MaskPicture; readonly area: Area };
}

/** Each is null if nothing is painted, so that everything may change. */
export interface PaintedMask {
  /** With the stroke in progress. */
  readonly shown: MaskPicture | null;
  /** Without it: the area until the stroke is finished. */
  readonly settled: MaskPicture | null;
}

const NOTHING: PaintedMask = { shown: null, settled: null };

/** Paints layers and the stroke in progress. A stroke that grows costs what is added to it. */
export class MaskPainter {
  readonly #settled = newMask();
  readonly #live = newMask();
  #painted: readonly MaskLayer[] = [];
  #white = false;
  #scale = 0;
  #rasters: ReadonlyMap<string, CanvasImageSource> | null = null;
  /** Of what is painted in `#settled`; null if there is nothing yet. */
  #settledPicture: MaskPicture | null = null;
  /** The stroke as far as it is painted in `#live`, and the picture of that. */
  #stroke: StrokeShape | null = null;
  #livePicture: MaskPicture | null = null;

  paint(
    picture: Size,
    layers: readonly MaskLayer[],
    rasters: ReadonlyMap<string, CanvasImageSource>,
    current: StrokeShape | null,
  ): PaintedMask {
    if (layers.length === 0 && current === null) {
      this.#settledPicture = null;
      return NOTHING;
    }
    this.#settle(picture, layers, rasters, current);
    const settled = layers.length === 0 ? null : this.#settledPicture;
    if (current === null) return { shown: settled, settled };
    if (current !== this.#stroke) this.#livePicture = this.#paintCurrent(current, this.#livePicture);
    return { shown: this.#livePicture, settled };
  }

  #settle(
    picture: Size,
    layers: readonly MaskLayer[],
    rasters: ReadonlyMap<string, CanvasImageSource>,
    current: StrokeShape | null,
  ): void {
    const scale = MASK_SIDE / Math.max(picture.width, picture.height);
    const width = Math.max(1, Math.round(picture.width * scale));
    const height = Math.max(1, Math.round(picture.height * scale));
    const white = startsWhite(layers, current);
    const { region } = this.#settled;
    const canExtend =
      this.#settledPicture !== null &&
      this.#white === white &&
      this.#scale === scale &&
      this.#rasters === rasters &&
      region.width === width &&
      region.height === height &&
      this.#painted.every((layer, index) => layers[index]?.id === layer.id);
    if (canExtend && this.#painted.length === layers.length) return;
    const context = canExtend ? region.getContext("2d") : contextOf(region, width, height);
    if (context === null) return;
    if (!canExtend && white) {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
    }
    for (const layer of layers.slice(canExtend ? this.#painted.length : 0)) paintLayer(context, layer, rasters, scale);
    resize(this.#settled.outline, region);
    paintOutline(this.#settled, [0, 0, width, height]);
    this.#painted = layers;
    this.#white = white;
    this.#scale = scale;
    this.#rasters = rasters;
    this.#settledPicture = { ...this.#settled };
    this.#stroke = null;
  }

  /** Paints the stroke in `#live`, which `painted` shows as it was. */
  #paintCurrent(current: StrokeShape, painted: MaskPicture | null): MaskPicture {
    const { region, outline } = this.#live;
    const { width, height } = this.#settled.region;
    const before = this.#stroke;
    this.#stroke = current;
    const context = region.getContext("2d");
    if (before !== null && painted !== null && context !== null && isLonger(current, before)) {
      const added = { ...current, points: current.points.slice(before.points.length - 1) };
      const area = boundsOf(added, this.#scale);
      paintStroke(context, added, this.#scale);
      paintOutline(this.#live, area);
      return { region, outline, changed: { since: painted, area } };
    }
    contextOf(region, width, height).drawImage(this.#settled.region, 0, 0);
    contextOf(outline, width, height).drawImage(this.#settled.outline, 0, 0);
    if (context !== null) paintStroke(context, current, this.#scale);
    const area = boundsOf(current, this.#scale);
    paintOutline(this.#live, area);
    return { region, outline, ...(this.#settledPicture && { changed: { since: this.#settledPicture, area } }) };
  }
}

function newMask(): MaskPicture {
  return { region: window.document.createElement("canvas"), outline: window.document.createElement("canvas") };
}

/** Whether it is the earlier stroke and something after it, so that only that has to be painted. */
function isLonger(stroke: StrokeShape, before: StrokeShape): boolean {
  const { points } = before;
  const [first, last] = [points[0], points.at(-1)];
  return (
    !stroke.fill &&
    !stroke.softness &&
    stroke.mode === before.mode &&
    stroke.radius === before.radius &&
    stroke.points[0] === first &&
    stroke.points[points.length - 1] === last
  );
}

/** What a stroke may have changed, its outline included. */
function boundsOf({ points, radius }: StrokeShape, scale: number): Area {
  const reach = radius * scale + 2 * OUTLINE_WIDTH;
  const xs = points.map(([x]) => (x + 0.5) * scale);
  const ys = points.map(([, y]) => (y + 0.5) * scale);
  const [left, top] = [Math.floor(Math.min(...xs) - reach), Math.floor(Math.min(...ys) - reach)];
  const [right, bottom] = [Math.ceil(Math.max(...xs) + reach), Math.ceil(Math.max(...ys) + reach)];
  return [left, top, right - left, bottom - top];
}

/** Paints the part of the outline that lies in `area` from the region. */
function paintOutline({ region, outline }: MaskPicture, area: Area): void {
  const context = outline.getContext("2d");
  if (context === null) return;
  context.save();
  context.beginPath();
  context.rect(...area);
  context.clip();
  context.clearRect(...area);
  for (const [dx, dy] of DIRECTIONS) context.drawImage(region, dx * OUTLINE_WIDTH, dy * OUTLINE_WIDTH);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(region, 0, 0);
  context.restore();
}

function paintLayer(
  context: CanvasRenderingContext2D,
  layer: MaskLayer,
  rasters: ReadonlyMap<string, CanvasImageSource>,
  scale: number,
): void {
  const { width, height } = context.canvas;
  switch (layer.type) {
    case "stroke":
      paintStroke(context, layer, scale);
      break;
    case "invert":
      invert(context);
      break;
    case "grow":
      if (layer.pixels < 0) invert(context);
      grow(context, Math.abs(layer.pixels) * scale);
      if (layer.pixels < 0) invert(context);
      break;
    case "raster": {
      context.globalCompositeOperation = "source-over";
      context.clearRect(0, 0, width, height);
      const raster = rasters.get(layer.sha256);
      if (raster !== undefined) context.drawImage(raster, 0, 0, width, height);
      break;
    }
  }
}

function invert(context: CanvasRenderingContext2D): void {
  const { width, height } = context.canvas;
  context.globalCompositeOperation = "xor";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
}

/** Widens what is opaque: by a half of the pixels, a quarter and so on, each time in eight directions. */
function grow(context: CanvasRenderingContext2D, pixels: number): void {
  for (let radius = pixels / 2; radius >= 0.5; radius /= 2) {
    const before = new OffscreenCanvas(context.canvas.width, context.canvas.height);
    before.getContext("2d")?.drawImage(context.canvas, 0, 0);
    for (const [dx, dy] of DIRECTIONS) context.drawImage(before, Math.round(dx * radius), Math.round(dy * radius));
  }
}

function paintStroke(context: CanvasRenderingContext2D, stroke: StrokeShape, scale: number): void {
  context.globalCompositeOperation = stroke.mode === "paint" ? "source-over" : "destination-out";
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  // The canvas's origin is the corner of the first pixel, the picture's is its centre. A dot is a line to itself.
  stroke.points.forEach(([x, y], index) => {
    const at = [(x + 0.5) * scale, (y + 0.5) * scale] as const;
    if (index === 0) context.moveTo(...at);
    context.lineTo(...at);
  });
  if (stroke.fill) {
    context.fill("evenodd");
    context.globalCompositeOperation = "source-over";
    return;
  }
  // Rings that get larger and fainter add up to a ramp.
  const softness = stroke.softness ?? 0;
  const rings = softness === 0 ? 1 : SOFT_RINGS;
  for (let ring = 0; ring < rings; ring++) {
    const reach = rings === 1 ? 1 : 1 - softness + (softness * (ring + 0.5)) / rings;
    context.globalAlpha = rings === 1 ? 1 : 1 / (ring + 1);
    context.lineWidth = stroke.radius * 2 * reach * scale;
    context.stroke();
  }
  context.globalAlpha = 1;
  context.globalCompositeOperation = "source-over";
}

function contextOf(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  resize(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser has no 2D canvas");
  return context;
}

/** Clears the canvas, too. */
function resize(canvas: HTMLCanvasElement, { width, height }: Size): void {
  canvas.width = width;
  canvas.height = height;
}
