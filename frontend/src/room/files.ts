/** Files in and out of a room: masks to upload, results to download. */

import { fetchDownload, uploadMask } from "./api.ts";
import type { Download } from "./api.ts";
import { currentSession } from "./current-session.ts";
import { ApiError, messageOf } from "./http.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

const EXTENSIONS: Readonly<Record<Download, string>> = {
  result: "png",
  "trajectory.webp": "webp",
  "trajectory.mp4": "mp4",
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

export async function download(which: Download): Promise<void> {
  const session = currentSession();
  if (session === null) return;
  try {
    saveFile(await fetchDownload(session.key, which), `livedrag-${session.key.room}.${EXTENSIONS[which]}`);
  } catch (error) {
    store.toast("error", texts.errors.downloadFailed(messageOf(error)));
  }
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
