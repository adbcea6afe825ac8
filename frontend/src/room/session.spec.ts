import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { blankDocument, runOf } from "./fixtures.ts";
import { FakeWebSocket, newest, welcome } from "./fake-socket.ts";
import type { Document } from "./protocol.ts";
import * as actions from "./actions.ts";
import { joinRoom, submitPassword } from "./session.ts";
import * as store from "./store.ts";

const snapshot = (seq: number, document: Document = blankDocument) => ({ type: "snapshot", seq, document });
const going = { ...blankDocument, run: runOf() };

/** The browser's storage. */
let stored: Map<string, string>;
let leave: () => void;
let online: () => void;
const requested: string[] = [];
/** The server's answer to a request to enter. */
let entrance: Response;
const settle = () => vi.advanceTimersByTimeAsync(0);
const refusal = (status: number, reason: string, message: string) =>
  new Response(JSON.stringify({ error: { reason, message } }), { status });

beforeEach(async () => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", FakeWebSocket);
  vi.stubGlobal("window", {
    location: { protocol: "https:", host: "here" },
    addEventListener: (name: string, listener: () => void) => name === "online" && (online = listener),
    removeEventListener: () => undefined,
  });
  vi.stubGlobal("fetch", (path: string) => {
    requested.push(path);
    return path.endsWith("/enter") ? Promise.resolve(entrance.clone()) : new Promise(() => undefined);
  });
  vi.stubGlobal("createImageBitmap", () => new Promise(() => undefined));
  stored = new Map();
  vi.stubGlobal("localStorage", {
    getItem: (name: string) => stored.get(name) ?? null,
    setItem: (name: string, value: string) => stored.set(name, value),
    removeItem: (name: string) => stored.delete(name),
  });
  FakeWebSocket.made = [];
  requested.length = 0;
  store.toasts.value = [];
  entrance = new Response('{"role":"owner","ticket":"t1ck3t"}');
  leave = joinRoom({ room: "r", secret: "s3cret" });
  await settle();
});

afterEach(() => {
  leave();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function open(document: Document = blankDocument, seq = 3): FakeWebSocket {
  const socket = newest();
  socket.opens();
  socket.says(welcome);
  socket.says(snapshot(seq, document));
  return socket;
}

const edits = (socket: FakeWebSocket) => socket.sent.filter(({ type }) => type === "edit");

it("enters by HTTP, then says hello without the secret and fetches the picture", async () => {
  const socket = open();
  expect(socket.url).toBe("wss://here/ws/r");
  expect(socket.sent[0]).toEqual({ type: "hello", version: "livedrag.v1", ticket: "t1ck3t" });
  await vi.waitFor(() => expect(requested).toEqual(["/api/rooms/r/enter", "/api/rooms/r/picture"]));
  expect(store.picture.value).toMatchObject({ width: 200 });
});

it("sends an edit at once, with what it had seen, and shows it before the answer", () => {
  const socket = open();
  actions.addDrag([10, 10], [40, 10]);
  expect(edits(socket)).toMatchObject([{ base: 3, op: { type: "add_drag", handle: [10, 10], target: [40, 10] } }]);
  expect(store.drags.value).toHaveLength(1);
});

it("stores edits made without a connection and sends them, in order, after the snapshot", () => {
  open().closes(1006);
  expect(store.connection.value.state).toBe("lost");
  actions.addDrag([10, 10], [40, 10]);
  const [drag] = store.drags.value;
  actions.moveDrag(drag?.id ?? "", "target", [60, 20]);
  online();
  const socket = newest();
  socket.opens();
  socket.says(welcome);
  actions.moveDrag(drag?.id ?? "", "target", [70, 20]);
  expect(edits(socket)).toEqual([]);
  socket.says(snapshot(9));
  expect(edits(socket).map(({ op }) => (op as { type: string }).type)).toEqual(["add_drag", "move_drag", "move_drag"]);
  expect(store.drags.value[0]?.target).toEqual([70, 20]);
  expect(store.toasts.value.map(({ text }) => text)).toEqual(["Reconnected"]);
});

it("sends, after a reload, what it had not been able to send, marked as made offline, until it is answered", async () => {
  const first = open();
  first.closes(1006);
  actions.addDrag([10, 10], [40, 10]);
  leave();
  leave = joinRoom({ room: "r", secret: "s3cret" });
  await settle();
  const second = open(blankDocument, 8);
  expect(edits(second)).toMatchObject([{ base: 3, offline: true, op: { type: "add_drag", handle: [10, 10] } }]);
  expect(store.drags.value).toMatchObject([{ target: [40, 10], waiting: true }]);
  const { op_id, op } = edits(second)[0] as { op_id: string; op: object };
  second.says({ type: "edited", seq: 9, op_id, by: "me", op: { ...op } });
  expect(stored.size).toBe(0);
  expect(store.drags.value).toMatchObject([{ waiting: false }]);
});

it("discards and reports edits of another instance, and drops what is refused as stale", async () => {
  open().closes(1006);
  actions.clearMask();
  leave();
  leave = joinRoom({ room: "r", secret: "s3cret" });
  await settle();
  newest().opens();
  newest().says({ ...welcome, instance: "another" });
  newest().says(snapshot(3));
  expect(edits(newest())).toEqual([]);
  expect(stored.size).toBe(0);
  expect(store.toasts.value.at(-1)?.kind).toBe("error");
  actions.clearMask();
  newest().says({
    type: "rejected",
    op_id: String(edits(newest())[0]?.op_id),
    reason: "stale",
    message: "Bo has changed it since",
  });
  expect(stored.size).toBe(0);
});

it("re-sends under the same op_id what was sent and not answered", () => {
  const first = open();
  actions.clearMask();
  first.closes(1006);
  vi.advanceTimersByTime(1_000);
  const second = open();
  expect(edits(second)).toEqual(edits(first));
  second.says({ type: "edited", seq: 4, op_id: String(edits(second)[0]?.op_id), by: "u1", op: { type: "clear_mask" } });
  expect(store.pendingCount.value).toBe(0);
});

it("quotes what the server refuses, and takes it back", () => {
  const socket = open();
  actions.addDrag([10, 10], [40, 10]);
  socket.says({
    type: "rejected",
    op_id: String(edits(socket)[0]?.op_id),
    reason: "too_many",
    message: "64 drags are enough",
  });
  expect(store.drags.value).toEqual([]);
  expect(store.toasts.value.at(-1)).toMatchObject({
    kind: "error",
    text: "Couldn't add the point: 64 drags are enough",
  });
});

it("runs only with points and a connection, and stops only what runs", () => {
  const socket = open();
  actions.startRun();
  actions.stopRun();
  expect(socket.sent.filter(({ type }) => type === "run" || type === "stop")).toEqual([]);
  actions.addDrag([10, 10], [40, 10]);
  actions.startRun();
  actions.startRun();
  expect(socket.sent.filter(({ type }) => type === "run")).toHaveLength(1);
});

it("does not complain about a stop that came too late", () => {
  const socket = open(going);
  actions.stopRun();
  actions.stopRun();
  const stops = socket.sent.filter(({ type }) => type === "stop");
  expect(stops).toHaveLength(1);
  expect(store.stopping.value).toBe(true);
  socket.says({
    type: "ended",
    seq: 5,
    run: { ...going.run, outcome: "arrived", iterations: 9 },
    tracked: {},
    result: null,
  });
  socket.says({ type: "rejected", op_id: String(stops[0]?.op_id), reason: "invalid", message: "nothing runs" });
  expect(store.toasts.value).toEqual([]);
  expect(store.stopping.value).toBe(false);
});

it("shows why a run failed", () => {
  const socket = open(going);
  socket.says({
    type: "ended",
    seq: 5,
    run: { ...going.run, outcome: "failed", message: "out of memory" },
    tracked: {},
    result: null,
  });
  expect(store.toasts.value.at(-1)).toMatchObject({ kind: "error", text: "out of memory" });
});

it("says that a link is incomplete, if no cookie opens the room", async () => {
  leave();
  const made = FakeWebSocket.made.length;
  entrance = refusal(403, "wrong_secret", "the secret is wrong");
  leave = joinRoom({ room: "r", secret: "" });
  await settle();
  expect(FakeWebSocket.made).toHaveLength(made);
  expect(store.connection.value).toMatchObject({
    state: "refused",
    message: expect.stringContaining("the part after #"),
  });
});

it("requires the server's password, and enters with it", async () => {
  leave();
  entrance = refusal(401, "password", "this server has a password");
  leave = joinRoom({ room: "r", secret: "s3cret" });
  await settle();
  expect(store.connection.value).toEqual({ state: "password", message: "this server has a password" });
  vi.stubGlobal("fetch", () => Promise.resolve(new Response("{}")));
  const made = FakeWebSocket.made.length;
  expect(await submitPassword("sesame")).toBeNull();
  await settle();
  expect(FakeWebSocket.made).toHaveLength(made + 1);
});

it("says that a password needs cookies where the browser blocks them", async () => {
  leave();
  vi.stubGlobal("navigator", { cookieEnabled: false });
  entrance = refusal(401, "password", "this server has a password");
  leave = joinRoom({ room: "r", secret: "s3cret" });
  await settle();
  expect(store.connection.value).toMatchObject({
    state: "refused",
    message: expect.stringContaining("Allow cookies for this site"),
  });
});

it("retries if the server could not be reached", async () => {
  leave();
  entrance = refusal(502, "bad_gateway", "no upstream");
  leave = joinRoom({ room: "r", secret: "s3cret" });
  await settle();
  expect(store.connection.value.state).toBe("lost");
  entrance = new Response("{}");
  const made = FakeWebSocket.made.length;
  await vi.advanceTimersByTimeAsync(1_000);
  expect(FakeWebSocket.made).toHaveLength(made + 1);
});

it("asks for what it missed, and marks what was changed offline", () => {
  open().closes(1006);
  actions.addDrag([10, 10], [40, 10]);
  expect(store.drags.value[0]?.waiting).toBe(true);
  vi.advanceTimersByTime(1_000);
  const socket = newest();
  socket.opens();
  expect(socket.sent[0]).toMatchObject({ since: 3, of: "life" });
  socket.says(welcome);
  socket.says({ type: "resumed", seq: 3 });
  const [sent] = edits(socket);
  expect(sent).toMatchObject({ offline: true });
  expect(store.drags.value[0]?.waiting).toBe(true);
  socket.says({
    type: "edited",
    seq: 4,
    op_id: String(sent?.op_id),
    by: "me",
    op: sent?.op,
    undoes: null,
    redoes: null,
  });
  expect(store.drags.value[0]?.waiting).toBe(false);
});

it("sends its presence at intervals, and only if others are here", () => {
  const socket = open();
  const pointed = () => socket.sent.filter(({ type }) => type === "presence");
  store.pointer.value = [5, 5];
  vi.advanceTimersByTime(1_000);
  expect(pointed()).toEqual([]);
  const person = { colour: "#123456", role: "editor", here: true };
  socket.says({ type: "people", people: { me: { ...person, name: "" }, anna: { ...person, name: "Anna" } } });
  vi.advanceTimersByTime(100);
  for (let step = 0; step < 50; step++) {
    store.pointer.value = [step, 5];
    vi.advanceTimersByTime(10);
  }
  expect(pointed().at(-1)).toMatchObject({
    cursor: [expect.any(Number), 5],
    selected: null,
    tool: "points",
    busy: false,
  });
  expect(pointed().length).toBeGreaterThan(5);
  expect(pointed().length).toBeLessThan(16);
});

it("announces who joins, and a new role", () => {
  const socket = open();
  const person = { colour: "#123456", role: "editor", here: true };
  const me = { ...person, name: "", role: "owner" };
  socket.says({ type: "people", people: { me } });
  expect(store.toasts.value).toEqual([]);
  socket.says({ type: "people", people: { me, anna: { ...person, name: "Anna" } } });
  socket.says({ type: "people", people: { me: { ...me, role: "viewer" }, anna: { ...person, name: "Anna" } } });
  expect(store.toasts.value.map(({ text }) => text)).toEqual(["Anna joined", "You can only view now"]);
  expect(store.editable.value).toBe(false);
});
