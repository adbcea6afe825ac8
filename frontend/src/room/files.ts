/** Files in and out of a room: masks to upload, results to download. */

import { fetchDownload, uploadMask } from "./api.ts";
import type { Download } from "./api.ts";
import { currentSession } from "./current-session.ts";
import { messageOf } from "./http.ts";
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

/** Replaces the mask by a file, in which white may change. */
export async function loadMask(file: File): Promise<void> {
  const session = currentSession();
  if (session === null) return;
  try {
    await uploadMask(session.key, file);
    store.toast("info", texts.mask.loaded);
  } catch (error) {
    store.toast("error", texts.errors.maskFailed(messageOf(error)));
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

function saveFile(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = window.document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser may still be reading it.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
