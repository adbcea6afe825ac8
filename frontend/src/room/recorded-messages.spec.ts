/** The messages that the server's tests record: what one side calls a field, the other has to know by that name. */

import { decode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import recorded from "../../../tests/messages.json";
import { decodeMessage, encodeMessage } from "./codec.ts";
import type {
  ClientMessage,
  Document,
  Drag,
  MaskLayer,
  ModelInfo,
  Moment,
  Operation,
  Person,
  Picture,
  Presence,
  Restore,
  Result,
  RoomLimits,
  Run,
  ServerMessage,
} from "./protocol.ts";
import { EMPTY_ROOM, receive } from "./room.ts";

/** Every key of a type, checked by the compiler: none may be missing, none added. */
type Keys<T> = { readonly [K in keyof Required<T>]: true };
type KeysByType<T extends { readonly type: string }> = {
  readonly [K in T["type"]]: Keys<Extract<T, { readonly type: K }>>;
};
type Json = Readonly<Record<string, unknown>>;

const run = { run: true, type: true } as const;

const SERVER: KeysByType<ServerMessage> = {
  welcome: {
    type: true,
    version: true,
    room: true,
    you: true,
    role: true,
    instance: true,
    person: true,
    capabilities: true,
    limits: true,
    base: true,
    page: true,
    model: true,
    heartbeat: true,
    deadline: true,
    frame_credits: true,
  },
  snapshot: { type: true, seq: true, document: true },
  edited: { type: true, seq: true, op_id: true, by: true, op: true, undoes: true, redoes: true },
  rejected: { type: true, op_id: true, reason: true, message: true },
  started: { ...run, seq: true, op_id: true },
  stopping: { type: true, seq: true, op_id: true, by: true },
  ended: { ...run, seq: true, tracked: true, result: true, moment: true, lost: true },
  base_replaced: { type: true, seq: true, op_id: true, by: true, picture: true },
  was_reset: { type: true, seq: true, op_id: true, by: true },
  people: { type: true, people: true },
  presences: { type: true, people: true },
  history: { type: true, undo: true, redo: true },
  resumed: { type: true, seq: true },
  log: { type: true, entries: true },
  seeked: { type: true, seq: true, op_id: true, by: true, moment: true, tracked: true },
  moments: { type: true, run: true, moments: true, current: true },
  engine: { type: true, state: true, message: true },
  model: { type: true, model: true },
  prepared: {
    type: true,
    stage: true,
    step: true,
    steps: true,
    seconds_left: true,
    ignored_prompt: true,
    unknown: true,
  },
  progress: { ...run, stage: true, step: true, steps: true, seconds: true, seconds_left: true, loss: true },
  points: { ...run, iteration: true, handles: true, distances: true, loss: true, content: true, lost: true },
  frame: {
    ...run,
    frame: true,
    stage: true,
    iteration: true,
    format: true,
    width: true,
    height: true,
    time: true,
    data: true,
  },
  pong: { type: true, time: true },
  error: { type: true, reason: true, message: true },
};

const CLIENT: KeysByType<ClientMessage> = {
  hello: { type: true, version: true, secret: true, ticket: true, name: true, since: true, of: true, formats: true },
  edit: { type: true, op_id: true, base: true, op: true, offline: true },
  run: { type: true, op_id: true },
  stop: { type: true, op_id: true },
  reset: { type: true, op_id: true },
  edit_further: { type: true, op_id: true },
  restore_run: { type: true, op_id: true, run: true },
  undo: { type: true, op_id: true },
  redo: { type: true, op_id: true },
  seek: { type: true, op_id: true, moment: true },
  presence: { type: true, cursor: true, selected: true, tool: true, busy: true, view: true },
  name: { type: true, name: true },
  ack_frame: { type: true, frame: true },
  ping: { type: true, time: true },
};

const OPERATIONS: KeysByType<Operation> = {
  add_drag: { type: true, id: true, handle: true, target: true },
  move_drag: { type: true, id: true, handle: true, target: true },
  remove_drag: { type: true, id: true },
  add_stroke: { type: true, stroke: true },
  remove_stroke: { type: true, id: true },
  invert_mask: { type: true, id: true },
  grow_mask: { type: true, id: true, pixels: true },
  clear_mask: { type: true },
  set_prompt: { type: true, prompt: true },
  set_settings: { type: true, settings: true },
  mark_branch: { type: true, moment: true, mark: true },
  set_pin: { type: true, id: true, at: true },
  set_title: { type: true, title: true },
  set_model: { type: true, model: true },
};

const LAYERS: KeysByType<MaskLayer> = {
  stroke: { type: true, id: true, mode: true, radius: true, softness: true, points: true, fill: true },
  raster: { type: true, id: true, sha256: true },
  invert: { type: true, id: true },
  grow: { type: true, id: true, pixels: true },
};

const RESTORE: Keys<Restore> = {
  type: true,
  drags: true,
  settings: true,
  prompt: true,
  mask: true,
  content: true,
  branches: true,
  pins: true,
  title: true,
  model: true,
};
const PERSON: Keys<Person> = { name: true, colour: true, role: true, here: true };
const POINTING: Keys<Presence> = { cursor: true, selected: true, tool: true, busy: true, view: true };
const MOMENT: Keys<Moment> = { id: true, parent: true, iteration: true, time: true, thumbnail: true };
const LIMITS: Keys<RoomLimits> = {
  upload_bytes: true,
  pixels: true,
  drags: true,
  prompt: true,
  message_bytes: true,
  presence_rate: true,
};
const DOCUMENT: Keys<Document> = {
  picture: true,
  drags: true,
  mask: true,
  prompt: true,
  settings: true,
  run: true,
  result: true,
  moment: true,
  branches: true,
  pins: true,
  title: true,
  model: true,
};
const PICTURE: Keys<Picture> = { sha256: true, width: true, height: true, generation: true };
const DRAG: Keys<Drag> = { handle: true, target: true, tracked: true, lost: true };
const RUN: Keys<Run> = { id: true, by: true, iterations: true, outcome: true, interrupted: true, message: true };
const RESULT: Keys<Result> = { sha256: true, run: true, moment: true };
const MODEL: Keys<ModelInfo> = {
  name: true,
  kind: true,
  settings: true,
  presets: true,
  ranges: true,
  live: true,
  words: true,
  choices: true,
  unsuitable: true,
};

const messages = recorded as unknown as readonly {
  readonly from: "client" | "server";
  readonly json: Json;
  readonly msgpack: string;
}[];
const named = (from: string) =>
  messages.filter((one) => one.from === from).map((one) => [String(one.json.type), one] as const);
const bytesOf = (msgpack: string) => Uint8Array.from(atob(msgpack), (letter) => letter.charCodeAt(0));

function hasKeys(value: unknown, keys: Json | undefined): void {
  expect(Object.keys(value as Json).sort()).toEqual(Object.keys(keys ?? {}).sort());
}

function hasOperation(op: Json): void {
  hasKeys(op, ({ ...OPERATIONS, ...LAYERS, restore: RESTORE } as Readonly<Record<string, Json>>)[String(op.type)]);
  if (op.type === "add_stroke") hasKeys(op.stroke, LAYERS.stroke);
}

describe("recorded messages of the server", () => {
  it("are of every type", () => {
    expect(new Set(named("server").map(([type]) => type))).toEqual(new Set(Object.keys(SERVER)));
  });

  it.each(named("server"))("%s reads as it was meant", (type, { json, msgpack }) => {
    const message = decodeMessage(bytesOf(msgpack)) as Json | null;
    hasKeys(json, (SERVER as Readonly<Record<string, Json>>)[type]);
    const { data, ...rest } = json;
    expect(message).toMatchObject(rest);
    if (data !== undefined) expect(message?.data).toEqual(bytesOf(data as string));
    if (type === "edited") hasOperation(json.op as Json);
    if (type === "welcome") {
      hasKeys(json.model, MODEL);
      hasKeys(json.limits, LIMITS);
    }
    if (type === "people") for (const person of Object.values(json.people as Json)) hasKeys(person, PERSON);
    if (type === "presences")
      for (const pointing of Object.values(json.people as Json)) if (pointing !== null) hasKeys(pointing, POINTING);
    if (type === "moments") for (const moment of json.moments as readonly Json[]) hasKeys(moment, MOMENT);
    if (type === "started" || type === "ended") hasKeys(json.run, RUN);
    if (type === "ended" && json.result) hasKeys(json.result, RESULT);
    if (type === "snapshot") {
      const document = json.document as Readonly<Record<keyof Document, unknown>>;
      hasKeys(document, DOCUMENT);
      hasKeys(document.picture, PICTURE);
      for (const drag of Object.values(document.drags as Json)) hasKeys(drag, DRAG);
      for (const layer of document.mask as readonly Json[])
        hasKeys(layer, (LAYERS as Readonly<Record<string, Json>>)[String(layer.type)]);
      if (document.run) hasKeys(document.run, RUN);
      if (document.result) hasKeys(document.result, RESULT);
    }
  });

  it("can all be received, whatever came before", () => {
    const all = named("server").flatMap(([, { msgpack }]) => decodeMessage(bytesOf(msgpack)) ?? []);
    for (const first of all) all.reduce(receive, receive(EMPTY_ROOM, first));
  });
});

describe("recorded messages of clients", () => {
  it("are of every type, and of every operation", () => {
    expect(new Set(named("client").map(([type]) => type))).toEqual(new Set(Object.keys(CLIENT)));
    const ops = named("client").flatMap(([, { json }]) => (json.op ? [(json.op as Json).type] : []));
    expect(new Set(ops)).toEqual(new Set(Object.keys(OPERATIONS)));
  });

  it.each(named("client"))("%s is what we would send", (type, { json, msgpack }) => {
    hasKeys(json, (CLIENT as Readonly<Record<string, Json>>)[type]);
    if (json.op) hasOperation(json.op as Json);
    expect(decode(encodeMessage(json as unknown as ClientMessage))).toEqual(decode(bytesOf(msgpack)));
  });
});
