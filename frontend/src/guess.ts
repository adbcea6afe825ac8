/** The instant guess as a picture: reads pixels from the browser's bitmaps and hands them to the warp. */

import type { Guessed } from "./draw.ts";
import type { Size } from "./geometry.ts";
import type { MaskPicture } from "./mask.ts";
import type { Ends } from "./warp.ts";
import { WarpField, depthsOf, gridSize, openCells, warpPixels } from "./warp.ts";
import type { Depths } from "./warp.ts";

/** Longest side of the guess, in its own pixels: sharp enough for a guess, and quick where processors are slow. */
const SIDE = 640;
/** Longest side at which the mask is read: two pixels to a cell of its grid. */
const MASK_SIDE = 256;

/** Makes guesses; keeps what it read, so that a target under the pointer costs one warp. */
export class Guesser {
  readonly #canvas = window.document.createElement("canvas");
  #bitmap: ImageBitmap | null = null;
  #source: ImageData | null = null;
  #target: ImageData | null = null;
  #mask: MaskPicture | null = null;
  #masked = "";
  #depths: Depths | null = null;
  #made = "";
  #guessed: Guessed | null = null;
  /** How long the last one took, in milliseconds. */
  milliseconds = 0;

  /** The `bitmap`, which shows the whole `picture`, warped; transparent where nothing moves; null where nothing does. */
  guess(bitmap: ImageBitmap, picture: Size, drags: readonly Ends[], mask: MaskPicture | null): Guessed | null {
    const began = performance.now();
    const size = `${picture.width} ${picture.height}`;
    const made = `${size} ${JSON.stringify(drags)}`;
    if (bitmap === this.#bitmap && mask === this.#mask && made === this.#made) return this.#guessed;
    if (bitmap !== this.#bitmap || this.#source === null) {
      this.#source = read(bitmap, shrunk(picture, SIDE));
      this.#target = new ImageData(this.#source.width, this.#source.height);
    }
    if (mask !== this.#mask || size !== this.#masked) this.#depths = mask && depthsIn(mask, picture);
    this.#bitmap = bitmap;
    this.#mask = mask;
    this.#masked = size;
    this.#made = made;
    const target = this.#target;
    if (target === null) return null;
    const moves = warpPixels(this.#source, new WarpField(drags, this.#depths, picture), target);
    if (moves) {
      this.#canvas.width = target.width;
      this.#canvas.height = target.height;
      this.#canvas.getContext("2d")?.putImageData(target, 0, 0);
    }
    this.#guessed = moves ? { canvas: this.#canvas } : null;
    this.milliseconds = performance.now() - began;
    return this.#guessed;
  }
}

function depthsIn(mask: MaskPicture, picture: Size): Depths | null {
  const { data, width, height } = read(mask.region, shrunk(picture, MASK_SIDE));
  const grid = gridSize(picture);
  return depthsOf(
    openCells((index) => (data[index * 4 + 3] ?? 0) >= 128, { width, height }, grid),
    grid,
    picture,
  );
}

function shrunk({ width, height }: Size, side: number): Size {
  const scale = Math.min(1, side / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

function read(picture: CanvasImageSource, { width, height }: Size): ImageData {
  const canvas = window.document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) throw new Error("this browser gives no 2D canvas");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}
