/** Fetches the room's pictures and puts them into the store. */

import { fetchMask, fetchMoment, fetchPicture } from "./api.ts";
import { currentSession } from "./current-session.ts";
import type { Session } from "./current-session.ts";
import { messageOf } from "./http.ts";
import { readMask } from "./mask-files.ts";
import { addRecentRoom } from "./recent-rooms.ts";
import { loadStoredPicture, momentName, storePicture } from "./stored-rooms.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

/** Longest side of the thumbnail in the list of recent rooms, in pixels. */
const THUMBNAIL_SIDE = 128;

export async function showPicture(session: Session): Promise<void> {
  const sha256 = store.picture.value?.sha256 ?? null;
  if (sha256 === null || sha256 === session.picture) return;
  try {
    const bitmap = await createImageBitmap(await pictureBlob(session, "picture", sha256));
    if (currentSession() !== session) return bitmap.close();
    session.picture = sha256;
    store.original.value?.close();
    store.original.value = bitmap;
    if (store.result.value === null)
      addRecentRoom(session.key, { thumbnail: thumbnailOf(bitmap), title: store.document.value?.title ?? "" });
  } catch (error) {
    if (currentSession() === session) store.toast("error", texts.errors.pictureFailed(messageOf(error)));
  }
}

/** Shows the result that the document names. The last preview stays until it has been fetched. */
export async function showResult(session: Session): Promise<void> {
  const sha256 = store.document.value?.result?.sha256 ?? null;
  if (sha256 !== session.result) {
    session.result = sha256;
    const outdated = () => currentSession() !== session || session.result !== sha256;
    let bitmap: ImageBitmap | null = null;
    try {
      if (sha256 !== null) bitmap = await createImageBitmap(await pictureBlob(session, "result", sha256));
    } catch (error) {
      if (!outdated()) {
        session.result = null;
        store.toast("error", texts.errors.pictureFailed(messageOf(error)));
      }
    }
    if (outdated()) return bitmap?.close();
    store.result.value?.close();
    store.result.value = bitmap;
    if (bitmap !== null)
      addRecentRoom(session.key, { thumbnail: thumbnailOf(bitmap), title: store.document.value?.title ?? "" });
  }
  if (!store.running.value) {
    store.preview.value?.bitmap.close();
    store.preview.value = null;
  }
}

/** The thumbnail of a moment, fetched once. Rejects if the server no longer has it. */
export function momentPicture(id: number): Promise<ImageBitmap> {
  const session = currentSession();
  const moment = store.room.value.moments.find((one) => one.id === id);
  if (session === null || moment === undefined) return Promise.reject(new Error(`no moment ${id}`));
  const name = momentName(moment);
  const known = session.thumbnails.get(name);
  if (known !== undefined) return known;
  const fetched = storedOr(session, name, () => fetchMoment(session.key, id)).then((blob) => createImageBitmap(blob));
  session.thumbnails.set(name, fetched);
  // A failure is not remembered: the next try may succeed.
  fetched.catch(() => session.thumbnails.delete(name));
  return fetched;
}

/** Shows the moment that the room has gone to, until a run shows something newer. */
export async function showMoment(session: Session, id: number): Promise<void> {
  if (store.running.value) return;
  try {
    const bitmap = await momentPicture(id);
    if (currentSession() === session && store.document.value?.moment === id) store.scrubbed.value = { id, bitmap };
  } catch {
    // The timeline has been thinned out meanwhile; the points still show where it was.
  }
}

export async function loadRasters(session: Session): Promise<void> {
  for (const layer of store.document.value?.mask ?? []) {
    if (layer.type !== "raster" || store.rasters.value.has(layer.sha256)) continue;
    try {
      const mask = await readMask(await storedOr(session, layer.sha256, () => fetchMask(session.key, layer.sha256)));
      if (currentSession() !== session) return;
      store.rasters.value = new Map(store.rasters.value).set(layer.sha256, mask);
    } catch (error) {
      if (currentSession() === session) store.toast("error", texts.errors.maskFailed(messageOf(error)));
    }
  }
}

/** From this browser if it has the picture, else from the server. */
async function pictureBlob({ key }: Session, which: "picture" | "result", sha256: string): Promise<Blob> {
  const stored = await loadStoredPicture(key.room, sha256);
  if (stored !== null) return stored;
  const fetched = await fetchPicture(key, which);
  // The server may have a newer result already.
  if (fetched.sha256 === sha256) void storePicture(key.room, sha256, fetched.blob);
  return fetched.blob;
}

async function storedOr({ key }: Session, name: string, fetchBlob: () => Promise<Blob>): Promise<Blob> {
  const stored = await loadStoredPicture(key.room, name);
  if (stored !== null) return stored;
  const blob = await fetchBlob();
  void storePicture(key.room, name, blob);
  return blob;
}

function thumbnailOf(bitmap: ImageBitmap): string {
  const canvas = window.document.createElement("canvas");
  const scale = THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height);
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/webp", 0.8);
}
