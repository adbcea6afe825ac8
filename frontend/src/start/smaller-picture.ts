/** Pictures over the server's limits: a smaller copy is offered instead. */

import { signal } from "@preact/signals";
import type { Size } from "../room/geometry.ts";
import { requestJson } from "../room/http.ts";

export interface UploadLimits {
  readonly upload_bytes: number;
  readonly pixels: number;
}

/** A picture that is too large, and the size of a copy that is not. */
export interface TooLarge {
  readonly size: Size;
  readonly bytes: number;
  readonly limits: UploadLimits;
  readonly smaller: Size;
}

export interface Offer extends TooLarge {
  readonly answer: (accepted: boolean) => void;
}

/** The person does not want it after all. */
export class Cancelled extends Error {}

/** What the person is being asked. */
export const offer = signal<Offer | null>(null);

/** Of JPEGs: hardly visible. */
const QUALITY = 0.92;
/** While a copy still has too many bytes. */
const SHRINK = 0.8;

/** The picture, or a smaller copy if it is too large and the person agrees. Throws `Cancelled` if they don't. */
export async function withinLimits(picture: Blob): Promise<Blob> {
  const limits = await fetchLimits();
  const found = limits && (await tooLarge(picture, limits));
  if (!found) return picture;
  const accepted = await new Promise<boolean>((answer) => {
    offer.value = { ...found, answer };
  });
  offer.value = null;
  if (!accepted) throw new Cancelled();
  return smallerCopy(picture, found);
}

/** Null if the server can't be asked; then it answers to the upload itself. */
async function fetchLimits(): Promise<UploadLimits | null> {
  try {
    return (await requestJson<{ readonly limits?: UploadLimits }>("/healthz")).limits ?? null;
  } catch {
    return null;
  }
}

/** Null if the server accepts the picture, or if this browser can't read it and the server has to say what it is. */
export async function tooLarge(picture: Blob, limits: UploadLimits): Promise<TooLarge | null> {
  const size = await sizeOf(picture);
  if (size === null) return null;
  if (picture.size <= limits.upload_bytes && size.width * size.height <= limits.pixels) return null;
  return { size, bytes: picture.size, limits, smaller: smallerSize(size, limits.pixels) };
}

/** The largest size of this shape with at most so many pixels; never larger than `size`. */
export function smallerSize({ width, height }: Size, pixels: number): Size {
  const scale = Math.min(1, Math.sqrt(pixels / (width * height)));
  return { width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale)) };
}

/** A JPEG of the picture as it is seen, or a WebP if parts of it are transparent, within the limits. */
export async function smallerCopy(picture: Blob, { smaller, limits }: TooLarge): Promise<File> {
  const bitmap = await createImageBitmap(picture);
  let size = smaller;
  for (;;) {
    const blob = await encode(bitmap, size);
    if (blob.size <= limits.upload_bytes) {
      bitmap.close();
      return new File([blob], `smaller.${blob.type.split("/")[1]}`, { type: blob.type });
    }
    size = { width: Math.ceil(size.width * SHRINK), height: Math.ceil(size.height * SHRINK) };
  }
}

async function encode(bitmap: ImageBitmap, { width, height }: Size): Promise<Blob> {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser has no 2D canvas");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const type = isTransparent(canvas) ? "image/webp" : "image/jpeg";
  return canvas.convertToBlob({ type, quality: QUALITY });
}

/** Looks at a small copy: transparent parts of a picture are seldom smaller than that shows. */
function isTransparent(picture: OffscreenCanvas): boolean {
  const side = 64;
  const context = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  if (context === null) return false;
  context.drawImage(picture, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  for (let at = 3; at < data.length; at += 4) if ((data[at] ?? 255) < 255) return true;
  return false;
}

async function sizeOf(picture: Blob): Promise<Size | null> {
  try {
    const bitmap = await createImageBitmap(picture);
    const { width, height } = bitmap;
    bitmap.close();
    return { width, height };
  } catch {
    return null;
  }
}
