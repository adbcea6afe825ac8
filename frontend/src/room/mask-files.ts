/** Mask files, read by the browser. */

import type { Size } from "./geometry.ts";
import type { XY } from "./protocol.ts";

/** Longest side of a mask on this page, in its own pixels. */
export const MASK_SIDE = 1024;

/** A mask as transparency: white becomes opaque, black transparent. */
export async function readMask(file: Blob): Promise<HTMLCanvasElement> {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, MASK_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const [canvas, context] = newCanvas(width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const white = Math.max(pixels.data[at] ?? 0, pixels.data[at + 1] ?? 0, pixels.data[at + 2] ?? 0);
    pixels.data[at + 3] = Math.min(white, pixels.data[at + 3] ?? 255);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Whether a place of the picture is in the opaque half of a mask that `readMask` gave. */
export function isOpaqueAt(mask: HTMLCanvasElement, picture: Size, [x, y]: XY): boolean {
  const [left, top] = [((x + 0.5) / picture.width) * mask.width, ((y + 0.5) / picture.height) * mask.height];
  const pixel = mask.getContext("2d")?.getImageData(Math.floor(left), Math.floor(top), 1, 1).data;
  return (pixel?.[3] ?? 0) >= 128;
}

function newCanvas(width: number, height: number): [HTMLCanvasElement, CanvasRenderingContext2D] {
  const canvas = window.document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true }); // read again for every point
  if (context === null) throw new Error("this browser has no 2D canvas");
  return [canvas, context];
}
