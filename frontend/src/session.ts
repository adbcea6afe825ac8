/** Being in a room: wires socket, frames, pictures and store together, and turns what people do into messages. */

import { batch, effect } from "@preact/signals";
import { noted } from "./activity.ts";
import * as api from "./api.ts";
import { ApiError, fetchMask, fetchPicture, putMask, socketAddress } from "./api.ts";
import type { Keepsake, Key } from "./api.ts";
import { decodeFrames } from "./frames.ts";
import type { Frames } from "./frames.ts";
import { clampToPicture, distance, round } from "./geometry.ts";
import type { End } from "./geometry.ts";
import { asAlpha, asPng } from "./mask.ts";
import { makeId } from "./protocol.ts";
import type { AppliedOperation, Operation, People, Presence, Request, ServerMessage, Setting, XY } from "./protocol.ts";
import { receive, rejectedRequest, request } from "./room.ts";
import { isPhotograph } from "./photograph.ts";
import { remember } from "./recent.ts";
import { name as myName } from "./name.ts";
import { Refusal, connect } from "./socket.ts";
import type { Socket } from "./socket.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";
import * as unsent from "./unsent.ts";

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
  /** Thumbnails of the timeline by moment and its time, as they are asked for. */
  readonly moments: Map<string, Promise<ImageBitmap>>;
}

/** Milliseconds between two words on where our pointer is, at least. */
const POINTING = 40;

let session: Session | null = null;

/** Enters a room; one at a time. Returns how to leave it. */
export function enter(key: Key): () => void {
  session?.socket.close();
  store.clear();
  store.key.value = key;
  // The callbacks below are called while these two are being made.
  const mine = { key, synced: false, picture: null, result: null, moments: new Map() } as Omit<
    Session,
    "socket" | "frames"
  > as Session;
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
    admit: () => admit(key),
    hello: () => {
      const known = store.room.value;
      const since = known.document === null ? {} : { since: known.seq, of: known.instance };
      return myName.value === "" ? since : { ...since, name: myName.value };
    },
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
  // A browser that says it is offline may still reach a server on the same machine, hence no more than a doubt.
  const doubt = () => mine.socket.doubt();
  window.addEventListener("online", hurry);
  window.addEventListener("offline", doubt);
  const stopPointing = point(mine);
  return () => {
    window.removeEventListener("online", hurry);
    window.removeEventListener("offline", doubt);
    stopPointing();
    if (session === mine) session = null;
    for (const bitmap of mine.moments.values())
      void bitmap.then(
        (one) => one.close(),
        () => undefined,
      );
    mine.socket.close();
    mine.frames.close();
    store.clear();
  };
}

/** Lets the page in by HTTP, whose cookie opens everything else. What no second try can change is a `Refusal`. */
async function admit(key: Key): Promise<void> {
  try {
    await api.enterRoom(key);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401 && error.reason === "password")
      throw new Refusal({ state: "password", message: error.message });
    if (error.status < 400 || error.status >= 500 || error.status === 429) throw error;
    throw new Refusal({
      state: "refused",
      code: error.status,
      message: key.secret === "" ? texts.refused.noSecret : error.message,
    });
  }
}

/** Says the server's password and goes on to the room. Returns what is wrong, or null. */
export async function sayPassword(password: string): Promise<string | null> {
  try {
    await api.sayPassword(password);
  } catch (error) {
    return messageOf(error);
  }
  retry();
  return null;
}

/** Tells the others where we point, what we have selected, and that we are busy; the latest, and not too often. */
function point(mine: Session): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let said = "";
  const say = () => {
    timer = undefined;
    if (session !== mine || !mine.synced) return;
    const presence = presenceOf();
    const words = JSON.stringify(presence);
    if (words !== said && mine.socket.send({ type: "presence", ...presence })) said = words;
  };
  const stop = effect(() => {
    const known = store.room.value.people;
    const company = Object.entries(known).some(([person, { here }]) => here && person !== store.room.value.person);
    presenceOf();
    // Whoever has just come has not heard yet.
    if (!store.connected.value || !company) said = "";
    else timer ??= setTimeout(say, POINTING);
  });
  return () => {
    stop();
    clearTimeout(timer);
  };
}

function presenceOf(): Presence {
  const at = store.crosshair.value ?? store.pointer.value;
  const tool = { points: "points", paint: "brush", erase: "eraser", hand: "hand" } as const;
  const doing = store.gesture.value?.kind;
  return {
    cursor: at === null ? null : round(at),
    selected: store.selected.value?.id ?? null,
    tool: tool[store.tool.value],
    busy: doing === "stroke" || doing === "move" || doing === "pull",
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
    if (kind !== undefined && (kind !== "stop" || store.running.value))
      store.toast("error", texts.rejected(kind, message.message));
  }
  if (message.type === "edited" || message.type === "rejected") {
    if (store.room.value.pending.some(({ op_id }) => op_id === message.op_id))
      unsent.settle(mine.key.room, message.op_id);
  }
  if (message.type === "error") store.toast("error", message.message);
  if (message.type === "people") greet(message);
  const before = store.room.value;
  const after = receive(before, message);
  store.activity.value = noted(store.activity.value, before, message);
  store.room.value = after;
  if (message.type !== "welcome" && before.role !== after.role) store.toast("info", texts.people.nowRole[after.role]);
  switch (message.type) {
    case "welcome":
      if (before.document === null) takeUp(mine, message.instance);
      break;
    case "resumed":
    case "snapshot":
      mine.synced = true;
      for (const ours of store.room.value.pending) mine.socket.send(ours);
      void showPicture(mine);
      void showResult(mine);
      void loadRasters(mine);
      break;
    case "engine":
      if (before.engine !== message.state && message.state === "restarting")
        store.toast("info", message.message ?? texts.engine.restarting);
      if (before.engine === "restarting" && message.state === "ready") store.toast("info", texts.engine.back);
      break;
    case "sought":
      store.aimed.value = new Set();
      store.scrub.value = null;
      void showMoment(mine, message.moment);
      break;
    case "edited":
      if (message.op.type === "raster" || message.op.type === "restore") void loadRasters(mine);
      noteAim(message.op);
      break;
    case "started":
      // What was looked at is what the run goes on from, and would hide it.
      store.scrub.value = null;
      break;
    case "ended":
      store.aimed.value = new Set();
      if (message.run.outcome === "failed" && message.run.message) store.toast("error", message.run.message);
      void showResult(mine);
      break;
    case "was_reset":
      store.scrub.value = null;
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

export function addStroke(
  mode: "paint" | "erase",
  radius: number,
  points: readonly XY[],
  softness = store.softness.value,
): void {
  if (points.length === 0) return;
  edit({
    type: "add_stroke",
    stroke: { type: "stroke", id: `s${makeId()}`, mode, radius, softness, points: points.map(round) },
  });
}

export function invertMask(): void {
  edit({ type: "invert_mask", id: `i${makeId()}` });
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
  return (
    store.connected.value &&
    store.editable.value &&
    !store.running.value &&
    !!now &&
    (now.run !== null || now.result !== null)
  );
}

export function reset(): void {
  if (canReset()) send({ type: "reset", op_id: makeId() });
}

export function undo(): void {
  if (canUndo()) send({ type: "undo", op_id: makeId() });
}

export function redo(): void {
  if (canRedo()) send({ type: "redo", op_id: makeId() });
}

export function canUndo(): boolean {
  return store.connected.value && store.editable.value && store.room.value.history.undo !== null;
}

export function canRedo(): boolean {
  return store.connected.value && store.editable.value && store.room.value.history.redo !== null;
}

/** Goes to a kept iteration; during a run, the run goes on from there. */
export function seek(moment: number): void {
  if (store.connected.value && store.editable.value) send({ type: "seek", op_id: makeId(), moment });
}

/** What others see beside our cursor. */
export function rename(to: string): void {
  myName.value = to;
  session?.socket.send({ type: "name", name: to });
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

export async function download(which: Keepsake): Promise<void> {
  const mine = session;
  if (mine === null) return;
  try {
    const blob = await api.fetchKeepsake(mine.key, which);
    const url = URL.createObjectURL(blob);
    const link = window.document.createElement("a");
    link.href = url;
    link.download = `livedrag-${mine.key.room}.${{ result: "png", "trajectory.webp": "webp", "trajectory.mp4": "mp4", export: "zip" }[which]}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    store.toast("error", texts.errors.downloadFailed(messageOf(error)));
  }
}

/** What has a new way to go is guessed again, until the next run has shown it. */
function noteAim(op: AppliedOperation): void {
  if (op.type === "add_drag" || (op.type === "move_drag" && op.target)) {
    store.aimed.value = new Set(store.aimed.value).add(op.id);
  }
}

function edit(op: Operation): void {
  noteAim(op);
  const ours = { type: "edit", op_id: makeId(), base: store.room.value.seq, op } as const;
  send(store.connected.value ? ours : { ...ours, offline: true });
}

/** Edits that an earlier page of this browser made and the server has not answered are ours to send. */
function takeUp(mine: Session, instance: string): void {
  const { edits, dropped } = unsent.unsent(mine.key.room, instance);
  const known = new Set(store.room.value.pending.map(({ op_id }) => op_id));
  const found = edits.filter(({ op_id }) => !known.has(op_id));
  store.room.value = found.reduce(request, store.room.value);
  if (found.length > 0) store.toast("info", texts.unsent.found(found.length));
  if (dropped > 0) store.toast("error", texts.unsent.dropped(dropped));
}

/** Notes what we ask for and sends it, now or when the connection is back. */
function send(ours: Request): void {
  store.room.value = request(store.room.value, ours);
  if (session !== null && ours.type === "edit") unsent.keep(session.key.room, store.room.value.instance, ours);
  if (session?.synced) session.socket.send(ours);
}

/** A word on who has come: not on those who were here before us. */
function greet(message: People): void {
  const before = store.room.value.people;
  if (Object.keys(before).length === 0) return;
  for (const [person, { name: called, here }] of Object.entries(message.people)) {
    if (here && !before[person]?.here && person !== store.room.value.person)
      store.toast("info", texts.people.came(called || texts.people.somebody));
  }
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

/** The small picture of a moment, once fetched. Rejects where it is not kept any more. */
export function momentPicture(id: number): Promise<ImageBitmap> {
  const mine = session;
  const moment = store.room.value.moments.find((one) => one.id === id);
  if (mine === null || moment === undefined) return Promise.reject(new Error(`no moment ${id}`));
  // Ids begin anew when the picture is prepared anew; times do not.
  const name = `${id} ${moment.time}`;
  const known = mine.moments.get(name);
  if (known !== undefined) return known;
  const asked = api.fetchMoment(mine.key, id).then((blob) => createImageBitmap(blob));
  mine.moments.set(name, asked);
  // A failure is no answer: asked again later, it may come.
  asked.catch(() => mine.moments.delete(name));
  return asked;
}

/** Shows where the room went on its timeline, until a run shows better. */
async function showMoment(mine: Session, id: number): Promise<void> {
  if (store.running.value) return;
  try {
    const bitmap = await momentPicture(id);
    if (session === mine && store.document.value?.moment === id) store.scrub.value = { id, bitmap };
  } catch {
    // It has been thinned away; the points say where it was.
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
