/** The quick preview as a picture: reads the pixels of the browser's bitmaps and warps them. */

import type { DragEnds, Size } from "../room/geometry.ts";
import type { MaskPicture } from "./mask-painter.ts";
import { warpPixels } from "./warp-pixels.ts";
import { WarpField, depthsOf, gridSize, openCells } from "./warp.ts";
import type { MaskDepths } from "./warp.ts";

/** Longest side in its own pixels: sharp enough for a first look, and quick on slow processors. */
const MAX_SIDE = 640;
/** Longest side at which the mask is read: two pixels per cell of its grid. */
const MAX_MASK_SIDE = 256;
/** Of 255. */
const MIN_OPAQUE = 128;

/** A new object for every preview, though they share a canvas. */
export interface QuickPreviewPicture {
  readonly canvas: HTMLCanvasElement;
}

/** Paints quick previews. It keeps what it has read, so that dragging a target costs one warp per frame. */
export class QuickPreviewPainter {
  readonly #canvas = window.document.createElement("canvas");
  #bitmap: ImageBitmap | null = null;
  #source: ImageData | null = null;
  #target: ImageData | null = null;
  #mask: MaskPicture | null = null;
  #depthsSize = "";
  #depths: MaskDepths | null = null;
  #inputs = "";
  #painted: QuickPreviewPicture | null = null;
  /** How long the last one took, in milliseconds. */
  milliseconds = 0;

  /** `bitmap`, which shows the whole `picture`, warped. Transparent where nothing moves; null if nothing does. */
  paint(
    bitmap: ImageBitmap,
    picture: Size,
    drags: readonly DragEnds[],
    mask: MaskPicture | null,
  ): QuickPreviewPicture | null {
    const began = performance.now();
    const size = `${picture.width} ${picture.height}`;
    const inputs = `${size} ${JSON.stringify(drags)}`;
    if (bitmap === this.#bitmap && mask === this.#mask && inputs === this.#inputs) return this.#painted;
    if (bitmap !== this.#bitmap || this.#source === null) {
      this.#source = readPixels(bitmap, limitedTo(MAX_SIDE, picture));
      this.#target = new ImageData(this.#source.width, this.#source.height);
    }
    if (mask !== this.#mask || size !== this.#depthsSize) this.#depths = mask && maskDepths(mask, picture);
    this.#bitmap = bitmap;
    this.#mask = mask;
    this.#depthsSize = size;
    this.#inputs = inputs;
    const target = this.#target;
    if (target === null) return null;
    const moves = warpPixels(this.#source, new WarpField(drags, this.#depths, picture), target);
    if (moves) {
      this.#canvas.width = target.width;
      this.#canvas.height = target.height;
      this.#canvas.getContext("2d")?.putImageData(target, 0, 0);
    }
    this.#painted = moves ? { canvas: this.#canvas } : null;
    this.milliseconds = performance.now() - began;
    return this.#painted;
  }
}

function maskDepths(mask: MaskPicture, picture: Size): MaskDepths | null {
  const { data, width, height } = readPixels(mask.region, limitedTo(MAX_MASK_SIDE, picture));
  const grid = gridSize(picture);
  const mayChange = (index: number) => (data[index * 4 + 3] ?? 0) >= MIN_OPAQUE;
  return depthsOf(openCells(mayChange, { width, height }, grid), grid, picture);
}

function limitedTo(side: number, { width, height }: Size): Size {
  const scale = Math.min(1, side / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

function readPixels(picture: CanvasImageSource, { width, height }: Size): ImageData {
  const canvas = window.document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) throw new Error("this browser has no 2D canvas");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
