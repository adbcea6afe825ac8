/**
 * The mask as the canvas shows it. The server's rasteriser is the one that counts; this one draws the same round strokes
 * for the eye, in a canvas of a fixed longest side.
 */

import type { Size } from "./geometry.ts";
import type { MaskLayer, Stroke } from "./protocol.ts";

/** Longest side of the mask's canvas, in its own pixels: fine enough for a screen, small enough to repaint at once. */
const SIDE = 1024;
/** Width of the outline, in the same pixels. */
const OUTLINE = 2;

export interface MaskPicture {
  /** Opaque where the picture may change. */
  readonly region: HTMLCanvasElement;
  /** Its border alone, opaque. */
  readonly outline: HTMLCanvasElement;
}

/** Draws layers and the stroke in progress; keeps what it drew, so that a stroke under the brush costs one layer. */
export class MaskPainter {
  readonly #settled = window.document.createElement("canvas");
  readonly #region = window.document.createElement("canvas");
  readonly #outline = window.document.createElement("canvas");
  #drawn: readonly MaskLayer[] = [];
  #scale = 0;
  #rasters: ReadonlyMap<string, CanvasImageSource> | null = null;

  /** Null where nothing is painted: everything may change. */
  paint(
    picture: Size,
    layers: readonly MaskLayer[],
    rasters: ReadonlyMap<string, CanvasImageSource>,
    doing: Omit<Stroke, "id" | "type"> | null,
  ): MaskPicture | null {
    if (layers.length === 0 && doing === null) {
      this.#drawn = [];
      return null;
    }
    this.#settle(picture, layers, rasters, doing);
    const { width, height } = this.#settled;
    const region = contextOf(this.#region, width, height);
    region.drawImage(this.#settled, 0, 0);
    if (doing !== null) drawStroke(region, doing, this.#scale);
    const outline = contextOf(this.#outline, width, height);
    for (const [dx, dy] of AROUND) outline.drawImage(this.#region, dx * OUTLINE, dy * OUTLINE);
    outline.globalCompositeOperation = "destination-out";
    outline.drawImage(this.#region, 0, 0);
    return { region: this.#region, outline: this.#outline };
  }

  #settle(
    picture: Size,
    layers: readonly MaskLayer[],
    rasters: ReadonlyMap<string, CanvasImageSource>,
    doing: Omit<Stroke, "id" | "type"> | null,
  ): void {
    const scale = SIDE / Math.max(picture.width, picture.height);
    const width = Math.max(1, Math.round(picture.width * scale));
    const height = Math.max(1, Math.round(picture.height * scale));
    const grows =
      this.#scale === scale &&
      this.#rasters === rasters &&
      this.#settled.width === width &&
      this.#settled.height === height &&
      this.#drawn.length > 0 &&
      this.#drawn.every((layer, index) => layers[index]?.id === layer.id);
    const context = grows ? this.#settled.getContext("2d") : contextOf(this.#settled, width, height);
    if (context === null) return;
    if (!grows && beginsWhite(layers, doing)) {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
    }
    for (const layer of layers.slice(grows ? this.#drawn.length : 0)) {
      if (layer.type === "stroke") drawStroke(context, layer, scale);
      else if (layer.type === "invert") {
        context.globalCompositeOperation = "xor";
        context.fillStyle = "#fff";
        context.fillRect(0, 0, width, height);
        context.globalCompositeOperation = "source-over";
      } else {
        context.globalCompositeOperation = "source-over";
        context.clearRect(0, 0, width, height);
        const raster = rasters.get(layer.sha256);
        if (raster !== undefined) context.drawImage(raster, 0, 0, width, height);
      }
    }
    this.#drawn = layers;
    this.#scale = scale;
    this.#rasters = rasters;
  }
}

/** Whether the layers are drawn on white: where the first thing ever done takes something away. */
export function beginsWhite(layers: readonly MaskLayer[], doing: Pick<Stroke, "mode"> | null): boolean {
  const [first] = layers;
  return first === undefined ? doing?.mode === "erase" : first.type === "stroke" && first.mode === "erase";
}

/** Rings that a soft edge is drawn with: enough that none is seen. */
const RINGS = 20;

const AROUND = [0, 1, 2, 3, 4, 5, 6, 7].map((eighth) => {
  const angle = (eighth * Math.PI) / 4;
  return [Math.cos(angle), Math.sin(angle)] as const;
});

function drawStroke(context: CanvasRenderingContext2D, stroke: Omit<Stroke, "id" | "type">, scale: number): void {
  context.globalCompositeOperation = stroke.mode === "paint" ? "source-over" : "destination-out";
  context.strokeStyle = context.fillStyle = "#fff";
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  // The canvas counts from the corner of the first pixel, pictures from its centre. A dab is a line to itself.
  stroke.points.forEach(([x, y], index) => {
    const at = [(x + 0.5) * scale, (y + 0.5) * scale] as const;
    if (index === 0) context.moveTo(...at);
    context.lineTo(...at);
  });
  // A soft edge is drawn as rings, each a little larger and fainter; together they add up to a ramp.
  const softness = stroke.softness ?? 0;
  const rings = softness === 0 ? 1 : RINGS;
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
  const context = canvas.getContext("2d", { willReadFrequently: false });
  if (context === null) throw new Error("this browser gives no 2D canvas");
  return context;
}

/** A mask file as transparency: white opaque, black clear. */
export async function asAlpha(file: Blob): Promise<CanvasImageSource> {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = window.document.createElement("canvas");
  const context = contextOf(
    canvas,
    Math.max(1, Math.round(bitmap.width * scale)),
    Math.max(1, Math.round(bitmap.height * scale)),
  );
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const white = Math.max(pixels.data[at] ?? 0, pixels.data[at + 1] ?? 0, pixels.data[at + 2] ?? 0);
    pixels.data[at + 3] = Math.min(white, pixels.data[at + 3] ?? 255);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Any picture the browser can read, as PNG of the same size. */
export async function asPng(file: Blob): Promise<Blob> {
  const bitmap = await createImageBitmap(file);
  const canvas = window.document.createElement("canvas");
  contextOf(canvas, bitmap.width, bitmap.height).drawImage(bitmap, 0, 0);
  bitmap.close();
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob === null ? reject(new Error("no PNG")) : resolve(blob)), "image/png");
  });
}
