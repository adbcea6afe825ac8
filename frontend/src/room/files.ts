/** Files in and out of a room: masks to upload, results to download. */

import { fetchDownload, uploadMask } from "./api.ts";
import type { Download } from "./api.ts";
import { currentSession } from "./current-session.ts";
import { messageOf } from "./http.ts";
import { toPng } from "./mask-files.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

const EXTENSIONS: Readonly<Record<Download, string>> = {
  result: "png",
  "trajectory.webp": "webp",
  "trajectory.mp4": "mp4",
  export: "zip",
};

/** Replaces the mask by a file, in which white may change. The server takes PNGs; others are converted first. */
export async function loadMask(file: File): Promise<void> {
  const session = currentSession();
  if (session === null) return;
  let png: Blob = file;
  try {
    if (file.type !== "image/png") png = await toPng(file);
  } catch {
    store.toast("error", texts.errors.maskUnreadable(file.name));
    return;
  }
  try {
    await uploadMask(session.key, png);
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
