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

export interface MaskPicture {
  /** Opaque where the picture may change. */
  readonly region: HTMLCanvasElement;
  /** Opaque along its border. */
  readonly outline: HTMLCanvasElement;
}

/** Paints layers and the stroke in progress. It keeps what it has painted, so that a growing stroke costs one layer. */
export class MaskPainter {
  readonly #settled = window.document.createElement("canvas");
  readonly #region = window.document.createElement("canvas");
  readonly #outline = window.document.createElement("canvas");
  #painted: readonly MaskLayer[] = [];
  #scale = 0;
  #rasters: ReadonlyMap<string, CanvasImageSource> | null = null;

  /** Null if nothing is painted, so that everything may change. */
  paint(
    picture: Size,
    layers: readonly MaskLayer[],
    rasters: ReadonlyMap<string, CanvasImageSource>,
    current: StrokeShape | null,
  ): MaskPicture | null {
    if (layers.length === 0 && current === null) {
      this.#painted = [];
      return null;
    }
    this.#settle(picture, layers, rasters, current);
    const { width, height } = this.#settled;
    const region = contextOf(this.#region, width, height);
    region.drawImage(this.#settled, 0, 0);
    if (current !== null) paintStroke(region, current, this.#scale);
    const outline = contextOf(this.#outline, width, height);
    for (const [dx, dy] of DIRECTIONS) outline.drawImage(this.#region, dx * OUTLINE_WIDTH, dy * OUTLINE_WIDTH);
    outline.globalCompositeOperation = "destination-out";
    outline.drawImage(this.#region, 0, 0);
    return { region: this.#region, outline: this.#outline };
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
    const canExtend =
      this.#scale === scale &&
      this.#rasters === rasters &&
      this.#settled.width === width &&
      this.#settled.height === height &&
      this.#painted.length > 0 &&
      this.#painted.every((layer, index) => layers[index]?.id === layer.id);
    const context = canExtend ? this.#settled.getContext("2d") : contextOf(this.#settled, width, height);
    if (context === null) return;
    if (!canExtend && startsWhite(layers, current)) {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
    }
    for (const layer of layers.slice(canExtend ? this.#painted.length : 0)) paintLayer(context, layer, rasters, scale);
    this.#painted = layers;
    this.#scale = scale;
    this.#rasters = rasters;
  }
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
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser has no 2D canvas");
  return context;
}
