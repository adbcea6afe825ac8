/** Being in a room: wires socket, frames, pictures and store together, and turns what people do into messages. */

import { batch } from "@preact/signals";
import { fetchMask, fetchPicture, putMask, socketAddress } from "./api.ts";
import type { Key } from "./api.ts";
import { decodeFrames } from "./frames.ts";
import type { Frames } from "./frames.ts";
import { clampToPicture, distance, round } from "./geometry.ts";
import type { End } from "./geometry.ts";
import { asAlpha, asPng } from "./mask.ts";
import { makeId } from "./protocol.ts";
import type { Operation, Raster, Request, ServerMessage, Setting, XY } from "./protocol.ts";
import { receive, rejectedRequest, request } from "./room.ts";
import { isPhotograph } from "./photograph.ts";
import { remember } from "./recent.ts";
import { connect } from "./socket.ts";
import type { Socket } from "./socket.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

/** Side of the thumbnail that the landing shows, in pixels. */
const THUMBNAIL = 128;

interface Session {
  readonly key: Key;
  socket: Socket;
  frames: Frames;
  /** Whether this connection has had its snapshot: before that, ours would overtake what still has to be re-sent. */
  synced: boolean;
  picture: string | null;
  result: string | null;
}

let session: Session | null = null;

/** Enters a room; one at a time. Returns how to leave it. */
export function enter(key: Key): () => void {
  session?.socket.close();
  store.clear();
  store.key.value = key;
  if (key.secret === "") {
    store.connection.value = { state: "refused", code: 0, message: texts.refused.noSecret };
    return store.clear;
  }
  // The callbacks below are called while these two are being made.
  const mine = { key, synced: false, picture: null, result: null } as Omit<Session, "socket" | "frames"> as Session;
  session = mine;
  mine.frames = decodeFrames(
    (preview) => {
      if (preview.frame.run !== store.document.value?.run?.id || !store.running.value) {
        preview.bitmap.close();
        return;
      }
      store.preview.value?.bitmap.close();
      batch(() => {
        store.preview.value = preview;
        store.previews.value += 1;
      });
    },
    (frame) => mine.socket.send({ type: "ack_frame", frame }),
  );
  mine.socket = connect({
    url: socketAddress(key.room),
    secret: key.secret,
    onMessage: (message) => {
      if (session === mine) handle(mine, message);
    },
    onConnection: (connection) => {
      mine.synced = false;
      const before = store.connection.value;
      store.connection.value = connection;
      if (connection.state === "open" && before.state === "lost") store.toast("info", texts.connection.back);
    },
  });
  const hurry = () => mine.socket.retry();
  window.addEventListener("online", hurry);
  return () => {
    window.removeEventListener("online", hurry);
    if (session === mine) session = null;
    mine.socket.close();
    mine.frames.close();
    store.clear();
  };
}

function handle(mine: Session, message: ServerMessage): void {
  if (message.type === "frame") {
    mine.frames.receive(message);
    return;
  }
  if (message.type === "rejected") {
    const ours = rejectedRequest(store.room.value, message);
    const kind = ours?.type === "edit" ? ours.op.type : ours?.type;
    // A stop that comes too late has what it wanted, and has been settled by the run's end.
    if (kind !== undefined && (kind !== "stop" || store.running.value)) store.toast("error", texts.rejected(kind, message.message));
  }
  if (message.type === "error") store.toast("error", message.message);
  store.room.value = receive(store.room.value, message);
  switch (message.type) {
    case "snapshot":
      mine.synced = true;
      for (const ours of store.room.value.pending) mine.socket.send(ours);
      void showPicture(mine);
      void showResult(mine);
      void loadRasters(mine);
      break;
    case "edited":
      if (message.op.type === "raster") void loadRasters(mine);
      noteAim(message.op);
      break;
    case "ended":
      store.aimed.value = new Set();
      if (message.run.outcome === "failed" && message.run.message) store.toast("error", message.run.message);
      void showResult(mine);
      break;
    case "was_reset":
      store.aimed.value = new Set();
      void showResult(mine);
      break;
    default:
      break;
  }
}

// What people do ----------------------------------------------------------------------------------------------------

export function addDrag(handle: XY, target: XY): boolean {
  const { picture } = store;
  if (picture.value === null) return false;
  const from = round(clampToPicture(picture.value, handle));
  const to = round(clampToPicture(picture.value, target));
  if (distance(from, to) < 1) {
    store.toast("error", texts.errors.tooShort);
    return false;
  }
  const id = `d${makeId()}`;
  edit({ type: "add_drag", id, handle: from, target: to });
  store.selected.value = { id, end: "target" };
  store.announcement.value = texts.announce.added(store.drags.value.length);
  return true;
}

export function moveDrag(id: string, end: End, at: XY): void {
  const { picture } = store;
  if (picture.value === null) return;
  const place = round(clampToPicture(picture.value, at));
  edit(end === "handle" ? { type: "move_drag", id, handle: place } : { type: "move_drag", id, target: place });
}

export function removeDrag(id: string): void {
  if (store.selected.value?.id === id) store.selected.value = null;
  edit({ type: "remove_drag", id });
  store.announcement.value = texts.announce.removed;
}

export function addStroke(mode: "paint" | "erase", radius: number, points: readonly XY[]): void {
  if (points.length === 0) return;
  edit({ type: "add_stroke", stroke: { type: "stroke", id: `s${makeId()}`, mode, radius, points: points.map(round) } });
}

export function clearMask(): void {
  edit({ type: "clear_mask" });
}

export function setPrompt(prompt: string): void {
  if (prompt !== store.document.value?.prompt) edit({ type: "set_prompt", prompt });
}

export function setSettings(settings: Readonly<Record<string, Setting | null>>): void {
  edit({ type: "set_settings", settings });
}

export function canRun(): boolean {
  return (
    store.connected.value &&
    store.editable.value &&
    !store.running.value &&
    !store.starting.value &&
    store.drags.value.length > 0
  );
}

export function startRun(): void {
  if (canRun()) send({ type: "run", op_id: makeId() });
}

export function stopRun(): void {
  if (store.running.value && !store.stopping.value) send({ type: "stop", op_id: makeId() });
}

export function canReset(): boolean {
  const now = store.document.value;
  return store.connected.value && store.editable.value && !store.running.value && !!now && (now.run !== null || now.result !== null);
}

export function reset(): void {
  if (canReset()) send({ type: "reset", op_id: makeId() });
}

export function retry(): void {
  session?.socket.retry();
}

/** Loads a mask file; white may change. What is no PNG is made one first. */
export async function loadMask(file: File): Promise<void> {
  const mine = session;
  if (mine === null) return;
  let png: Blob = file;
  if (file.type !== "image/png") {
    try {
      png = await asPng(file);
    } catch {
      store.toast("error", texts.errors.maskUnreadable(file.name));
      return;
    }
  }
  try {
    await putMask(mine.key, png);
    store.toast("info", texts.mask.loaded);
  } catch (error) {
    store.toast("error", texts.errors.maskFailed(messageOf(error)));
  }
}

export async function download(): Promise<void> {
  const mine = session;
  if (mine === null) return;
  try {
    const blob = await fetchPicture(mine.key, "result");
    const url = URL.createObjectURL(blob);
    const link = window.document.createElement("a");
    link.href = url;
    link.download = `livedrag-${mine.key.room}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    store.toast("error", texts.errors.downloadFailed(messageOf(error)));
  }
}

/** What has a new way to go is guessed again, until the next run has shown it. */
function noteAim(op: Operation | Raster): void {
  if (op.type === "add_drag" || (op.type === "move_drag" && op.target)) {
    store.aimed.value = new Set(store.aimed.value).add(op.id);
  }
}

function edit(op: Operation): void {
  noteAim(op);
  send({ type: "edit", op_id: makeId(), base: store.room.value.seq, op });
}

/** Notes what we ask for and sends it, now or when the connection is back. */
function send(ours: Request): void {
  store.room.value = request(store.room.value, ours);
  if (session?.synced) session.socket.send(ours);
}

// Pictures ----------------------------------------------------------------------------------------------------------

async function showPicture(mine: Session): Promise<void> {
  const sha256 = store.picture.value?.sha256 ?? null;
  if (sha256 === null || sha256 === mine.picture) return;
  try {
    const bitmap = await createImageBitmap(await fetchPicture(mine.key, "picture"));
    if (session !== mine) return bitmap.close();
    mine.picture = sha256;
    store.original.value?.close();
    store.original.value = bitmap;
    store.photograph.value = isPhotograph(bitmap);
    if (store.result.value === null) remember(mine.key, thumbnail(bitmap));
  } catch (error) {
    if (session === mine) store.toast("error", texts.errors.pictureFailed(messageOf(error)));
  }
}

/** Shows the result that the document names; the last preview stays until it is there. */
async function showResult(mine: Session): Promise<void> {
  const wanted = store.document.value?.result?.sha256 ?? null;
  if (wanted !== mine.result) {
    mine.result = wanted;
    let bitmap: ImageBitmap | null = null;
    try {
      if (wanted !== null) bitmap = await createImageBitmap(await fetchPicture(mine.key, "result"));
    } catch (error) {
      if (session === mine && mine.result === wanted) {
        mine.result = null;
        store.toast("error", texts.errors.pictureFailed(messageOf(error)));
      }
    }
    if (session !== mine || mine.result !== wanted) return bitmap?.close();
    store.result.value?.close();
    store.result.value = bitmap;
    if (bitmap !== null) remember(mine.key, thumbnail(bitmap));
  }
  if (!store.running.value) {
    store.preview.value?.bitmap.close();
    store.preview.value = null;
  }
}

async function loadRasters(mine: Session): Promise<void> {
  for (const layer of store.document.value?.mask ?? []) {
    if (layer.type !== "raster" || store.rasters.value.has(layer.sha256)) continue;
    try {
      const mask = await asAlpha(await fetchMask(mine.key, layer.sha256));
      if (session !== mine) return;
      store.rasters.value = new Map(store.rasters.value).set(layer.sha256, mask);
    } catch (error) {
      if (session === mine) store.toast("error", texts.errors.maskFailed(messageOf(error)));
    }
  }
}

function thumbnail(bitmap: ImageBitmap): string {
  const canvas = window.document.createElement("canvas");
  const scale = THUMBNAIL / Math.max(bitmap.width, bitmap.height);
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/webp", 0.8);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
