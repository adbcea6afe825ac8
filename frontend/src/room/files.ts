/** Files in and out of a room: masks to upload, results to download. */

import { fetchDownload, replacePicture, uploadMask } from "./api.ts";
import type { Download } from "./api.ts";
import { currentSession } from "./current-session.ts";
import { ApiError, messageOf } from "./http.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

export type PictureFormat = "png" | "jpeg" | "webp";

/** Of JPEG and WebP, in percent. */
export const QUALITIES = { min: 1, max: 100, initial: 90 } as const;

const EXTENSIONS: Readonly<Record<Download, string>> = {
  result: "png",
  "trajectory.webp": "webp",
  "trajectory.mp4": "mp4",
  "numbers.csv": "csv",
  "numbers.json": "json",
  export: "zip",
};

/** What file choosers offer: the formats that the server reads. */
export const PICTURE_TYPES = "image/png,image/jpeg,image/webp,image/avif,image/bmp,image/tiff,image/gif";

/**
 * Replaces the mask by a file, in which white may change; `fit` scales one of another size. Resolves to what the server
 * says about the size if it is another one.
 */
export async function loadMask(file: File, fit = false): Promise<string | null> {
  const session = currentSession();
  if (session === null) return null;
  try {
    await uploadMask(session.key, file, fit);
    store.toast("info", texts.mask.loaded);
  } catch (error) {
    if (error instanceof ApiError && error.reason === "mask_size") return error.message;
    store.toast("error", texts.errors.maskFailed(messageOf(error)));
  }
  return null;
}

/** Edits another picture in this room, in place of the one that it has. */
export async function replaceRoomPicture(picture: Blob): Promise<void> {
  const session = currentSession();
  if (session === null) return;
  try {
    await replacePicture(session.key, picture);
    store.toast("info", texts.picture.replaced);
  } catch (error) {
    store.toast("error", texts.errors.replaceFailed(messageOf(error)));
  }
}

export async function download(which: Download): Promise<void> {
  const session = currentSession();
  if (session === null) return;
  try {
    saveFile(await fetchDownload(session.key, which), `livedrag-${session.key.room}.${EXTENSIONS[which]}`);
  } catch (error) {
    store.toast("error", texts.errors.downloadFailed(messageOf(error)));
  }
}

/** The result as a file of this browser's making. `quality` is in (0, 1], `scale` a share of the sides. */
export async function downloadResult(
  result: ImageBitmap,
  format: PictureFormat,
  quality: number,
  scale: number,
): Promise<void> {
  try {
    const blob = await encode(result, format, quality, scale);
    saveFile(blob, `livedrag-${currentSession()?.key.room ?? ""}.${format === "jpeg" ? "jpg" : format}`);
  } catch (error) {
    store.toast("error", texts.errors.downloadFailed(messageOf(error)));
  }
}

export async function copyResult(result: ImageBitmap, scale: number): Promise<void> {
  try {
    // A promise, since some browsers allow it only right after the click.
    const picture = encode(result, "png", 1, scale);
    await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
    store.toast("info", texts.copied);
  } catch (error) {
    store.toast("error", texts.errors.copyFailed(messageOf(error)));
  }
}

async function encode(bitmap: ImageBitmap, format: PictureFormat, quality: number, scale: number): Promise<Blob> {
  const canvas = window.document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (context === null) throw new Error("this browser has no 2D canvas");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise<Blob | null>((done) => canvas.toBlob(done, `image/${format}`, quality));
  // Browsers fall back to PNG for formats that they can't write.
  if (blob?.type !== `image/${format}`) throw new Error(texts.errors.noFormat(format));
  return blob;
}

function saveFile(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = window.document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser may still be reading it.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
