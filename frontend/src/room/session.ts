/** Being in a room: connects socket, frames, pictures and store. */

import { batch, effect } from "@preact/signals";
import { enterRoom } from "./access.ts";
import { markUnrendered } from "./actions.ts";
import { withActivity } from "./activity.ts";
import { socketAddress } from "./address.ts";
import type { RoomKey } from "./address.ts";
import * as api from "./api.ts";
import { currentSession, setCurrentSession } from "./current-session.ts";
import type { Session } from "./current-session.ts";
import { displayName } from "./display-name.ts";
import { isElsewhere } from "./document.ts";
import { FrameDecoder } from "./frame-decoder.ts";
import type { Preview } from "./frame-decoder.ts";
import { ApiError, messageOf } from "./http.ts";
import { replaceOlderPage } from "./page-version.ts";
import { loadRasters, showMoment, showPicture, showResult } from "./pictures.ts";
import { sharePresence } from "./presence.ts";
import { Close } from "./protocol.ts";
import type { Edited, Hello, People, Rejected, ServerMessage } from "./protocol.ts";
import { receive, rejectedRequest, withRequest } from "./room.ts";
import type { Room } from "./room.ts";
import { ConnectionRefused, RoomSocket } from "./socket.ts";
import type { Connection } from "./socket.ts";
import { overwrittenDrag, withMovers } from "./overwrites.ts";
import { renameRecentRoom } from "./recent-rooms.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";
import { loadStoredRoom, removeStoredRoom, storeRoom } from "./stored-rooms.ts";
import { loadUnsent, removeUnsent } from "./unsent-edits.ts";

/** Milliseconds from a change of the room to when this browser stores it. */
const STORE_DELAY = 1_000;

/** Joins a room, leaving the one before. Returns a function that leaves it. */
export function joinRoom(key: RoomKey): () => void {
  currentSession()?.socket.close();
  store.resetStore();
  store.roomKey.value = key;
  const session = createSession(key);
  const reconnect = () => session.socket.reconnectNow();
  // A browser that reports itself offline may still reach a server on the same machine.
  const check = () => session.socket.check();
  // The connection may have died while the page was hidden or the machine asleep.
  const comeBack = () => {
    if (window.document.visibilityState !== "visible") return;
    reconnect();
    check();
  };
  window.addEventListener("online", reconnect);
  window.addEventListener("offline", check);
  window.addEventListener("visibilitychange", comeBack);
  const stopPresence = sharePresence(session);
  const stopStoring = storeChanges(session);
  return () => {
    window.removeEventListener("online", reconnect);
    window.removeEventListener("offline", check);
    window.removeEventListener("visibilitychange", comeBack);
    stopPresence();
    stopStoring();
    closeSession(session);
  };
}

export function reconnectNow(): void {
  currentSession()?.socket.reconnectNow();
}

/** Sends the server's password and continues to the room. Returns the error, or null. */
export async function submitPassword(password: string): Promise<string | null> {
  try {
    await api.sendPassword(password);
  } catch (error) {
    return messageOf(error);
  }
  reconnectNow();
  return null;
}

function createSession(key: RoomKey): Session {
  // The callbacks below may be called while socket and frames are being created.
  const session = {
    key,
    ticket: "",
    synced: false,
    picture: null,
    result: null,
    thumbnails: new Map(),
  } as unknown as Session;
  setCurrentSession(session);
  session.frames = new FrameDecoder(showPreview, (frame) => session.socket.send({ type: "ack_frame", frame }));
  session.socket = new RoomSocket({
    url: socketAddress(key.room),
    authorize: () => authorize(session),
    hello: () => helloFields(session),
    onMessage: (message) => {
      if (currentSession() === session) handle(session, message);
    },
    onConnection: (connection) => {
      session.synced = false;
      followConnection(session, connection);
    },
  });
  return session;
}

function closeSession(session: Session): void {
  if (currentSession() === session) setCurrentSession(null);
  for (const thumbnail of session.thumbnails.values()) {
    thumbnail.then(
      (bitmap) => bitmap.close(),
      () => undefined,
    );
  }
  session.socket.close();
  session.frames.close();
  store.resetStore();
}

/** Gets the ticket and the cookie that the WebSocket needs. Throws `ConnectionRefused` if retrying is pointless. */
async function authorize(session: Session): Promise<void> {
  const { key } = session;
  try {
    session.ticket = await enterRoom(key);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const { status, reason, message } = error;
    if (status === 401 && reason === "password") {
      if (globalThis.navigator?.cookieEnabled === false) throw refused(status, texts.refused.noCookies);
      throw new ConnectionRefused({ state: "password", message });
    }
    if (status < 400 || status >= 500 || status === 429) throw error;
    throw refused(status, key.secret === "" ? texts.refused.noSecret : message);
  }
}

function refused(code: number, message: string): ConnectionRefused {
  return new ConnectionRefused({ state: "refused", code, message });
}

function helloFields(session: Session): Omit<Hello, "type" | "version"> {
  const { document, seq, instance } = store.room.value;
  const { ticket } = session;
  // A ticket is good for one connection; the cookie opens later ones.
  session.ticket = "";
  return {
    ...(document === null ? {} : { since: seq, of: instance }),
    ...(displayName.value === "" ? {} : { name: displayName.value }),
    ...(ticket === "" ? {} : { ticket }),
  };
}

function followConnection(session: Session, connection: Connection): void {
  const before = store.connection.value;
  store.connection.value = connection;
  if (connection.state === "open" && before.state === "lost") store.toast("info", texts.connection.restored);
  if (connection.state === "lost" && store.room.value.document === null) void openStored(session);
  if (connection.state !== "refused") return;
  if (connection.code === Close.UNKNOWN_VERSION) replaceOlderPage(connection.message);
  else void removeStoredRoom(session.key.room);
}

/** Shows a preview, or closes it if its run is over. */
function showPreview(preview: Preview): void {
  if (preview.frame.run !== store.document.value?.run?.id || !store.running.value) {
    preview.bitmap.close();
    return;
  }
  store.preview.value?.bitmap.close();
  batch(() => {
    store.preview.value = preview;
    store.previewCount.value += 1;
  });
}

function handle(session: Session, message: ServerMessage): void {
  if (message.type === "frame") {
    session.frames.receive(message);
    return;
  }
  const before = store.room.value;
  notify(before, message);
  if (message.type === "edited" || message.type === "rejected") {
    if (before.pending.some(({ op_id }) => op_id === message.op_id)) removeUnsent(session.key.room, message.op_id);
  }
  store.activity.value = withActivity(store.activity.value, before, message);
  store.room.value = receive(before, message);
  const title = store.room.value.document?.title;
  if (title !== undefined && title !== before.document?.title) renameRecentRoom(session.key.room, title);
  react(session, before, message);
}

/** Toasts about a message, shown before the room has changed. */
function notify(before: Room, message: ServerMessage): void {
  if (message.type === "rejected") notifyRejected(before, message);
  if (message.type === "error") store.toast("error", message.message);
  if (message.type === "people") notifyJoined(before, message);
  if (message.type === "edited") notifyOverwritten(before, message);
}

function notifyRejected(before: Room, message: Rejected): void {
  const request = rejectedRequest(before, message);
  const kind = request?.type === "edit" ? request.op.type : request?.type;
  // A stop that comes too late has got what it wanted.
  if (kind === undefined || (kind === "stop" && !store.running.value)) return;
  store.toast("error", texts.rejected(kind, message.message));
}

/** Says who has moved a point that this person had placed or moved last. */
function notifyOverwritten({ people, person: me, document }: Room, { by, op }: Edited): void {
  const id = overwrittenDrag(store.movers.value, me, by, op);
  store.movers.value = withMovers(store.movers.value, by, op);
  if (id === null) return;
  const number = Object.keys(document?.drags ?? {}).indexOf(id) + 1;
  store.toast("info", texts.people.overwrote(people[by]?.name || texts.people.anonymous, number));
}

/** Announces people who have just joined, not those who were here first. */
function notifyJoined({ people, person: me }: Room, message: People): void {
  if (Object.keys(people).length === 0) return;
  for (const [person, { name, here }] of Object.entries(message.people)) {
    if (here && !people[person]?.here && person !== me) {
      store.toast("info", texts.people.joined(name || texts.people.anonymous));
    }
  }
}

/** Everything that follows from a message once the room has received it. */
function react(session: Session, before: Room, message: ServerMessage): void {
  const { role } = store.room.value;
  if (message.type !== "welcome" && before.role !== role) store.toast("info", texts.people.newRole[role]);
  switch (message.type) {
    case "welcome":
      if (before.document === null) restoreUnsent(session, message.instance);
      replaceOlderPage(message.page);
      break;
    case "resumed":
    case "snapshot":
      synchronise(session);
      break;
    case "engine":
      notifyEngine(before.engine, message);
      break;
    case "edited":
      if (message.op.type === "raster" || message.op.type === "restore") void loadRasters(session);
      markUnrendered(message.op);
      if (message.op.type === "restore" && message.op.content) showContent(session);
      break;
    case "started":
      // The run continues from the scrubbed moment, which would hide it.
      store.scrubbed.value = null;
      break;
    case "ended":
      store.unrenderedDrags.value = new Set();
      if (message.run.outcome === "failed" && message.run.message) store.toast("error", message.run.message);
      void showResult(session);
      break;
    case "moments":
      // The first one after the page was opened: the room may be at a step that its result does not show.
      if (before.moments.length === 0 && store.scrubbed.value === null) showStep(session);
      break;
    case "seeked":
      store.unrenderedDrags.value = new Set();
      store.scrubbed.value = null;
      void showMoment(session, message.moment);
      break;
    case "was_reset":
    case "base_replaced":
      showContent(session);
      break;
    default:
      break;
  }
}

function synchronise(session: Session): void {
  session.synced = true;
  for (const request of store.room.value.pending) session.socket.send(request);
  showPictures(session);
}

function showPictures(session: Session): void {
  void showPicture(session);
  void showResult(session);
  void loadRasters(session);
}

/** Shows the room as this browser saw it last, until the server can be reached. */
async function openStored(session: Session): Promise<void> {
  const stored = await loadStoredRoom(session.key.room);
  if (stored === null || currentSession() !== session || store.room.value.document !== null) return;
  store.room.value = { ...store.room.value, ...stored };
  const { edits } = loadUnsent(session.key.room, stored.instance);
  store.room.value = edits.reduce(withRequest, store.room.value);
  showPictures(session);
}

/** Stores the room, a while after it has changed and when the page is left. Returns a function that stops. */
function storeChanges(session: Session): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const save = () => {
    clearTimeout(timer);
    timer = undefined;
    if (session.synced) void storeRoom(session.key.room, store.room.peek());
  };
  const stopFollowing = effect(() => {
    if (store.room.value.document !== null) timer ??= setTimeout(save, STORE_DELAY);
  });
  window.addEventListener("pagehide", save);
  return () => {
    stopFollowing();
    window.removeEventListener("pagehide", save);
    save();
  };
}

/** The picture shows something else now: another base, result or step. */
function showContent(session: Session): void {
  const document = store.document.value;
  if (document === null) return;
  store.unrenderedDrags.value = new Set();
  store.scrubbed.value = null;
  void showPicture(session);
  void showResult(session);
  showStep(session);
}

/** Shows the step that the room is at, if it is not the one of its result. */
function showStep(session: Session): void {
  const document = store.document.value;
  if (document !== null && document.moment !== null && isElsewhere(document)) void showMoment(session, document.moment);
}

/** Takes over the unsent edits of an earlier page. */
function restoreUnsent(session: Session, instance: string): void {
  const { edits, discarded } = loadUnsent(session.key.room, instance);
  const pending = new Set(store.room.value.pending.map(({ op_id }) => op_id));
  const found = edits.filter(({ op_id }) => !pending.has(op_id));
  store.room.value = found.reduce(withRequest, store.room.value);
  if (found.length > 0) store.toast("info", texts.unsent.sending(found.length));
  if (discarded > 0) store.toast("error", texts.unsent.discarded(discarded));
}

function notifyEngine(before: Room["engine"], message: Extract<ServerMessage, { readonly type: "engine" }>): void {
  if (before !== message.state && message.state === "restarting") {
    store.toast("info", message.message ?? texts.engine.restarting);
  }
  if (before === "restarting" && message.state === "ready") store.toast("info", texts.engine.restarted);
}
