/**
 * What the page knows of a room, pure: the server's document, our own requests that it has not answered yet, and the
 * volatile news of a run. `receive` is the reducer over server messages; the optimistic document is `visible`.
 */

import type {
  AppliedOperation,
  Document,
  Drag,
  EngineState,
  MaskLayer,
  ModelInfo,
  Moment,
  Person,
  Points,
  Prepared,
  Presence,
  Progress,
  Rejected,
  Request,
  Restore,
  Role,
  Run,
  ServerMessage,
  Setting,
  XY,
} from "./protocol.ts";

/** Longest trail kept of a handle, in places. */
const TRAIL = 400;
/** Most measurements kept for the chart. */
const MEASURED = 400;

export interface Room {
  readonly you: string;
  readonly role: Role;
  /** Who we are, over reconnects and tabs. */
  readonly person: string;
  /** Which life of the room this is: its `seq` means nothing in another. */
  readonly instance: string;
  readonly capabilities: readonly string[];
  readonly model: ModelInfo | null;
  readonly seq: number;
  /** As the server last said; null until the first snapshot. */
  readonly document: Document | null;
  /** Ours, in the order made, not yet answered; re-sent after a reconnect. */
  readonly pending: readonly Request[];
  /** Everybody who is here or ever changed something. */
  readonly people: Readonly<Record<string, Person>>;
  readonly presences: Readonly<Record<string, Presence>>;
  /** What our undo and redo would take back and bring back. */
  readonly history: { readonly undo: string | null; readonly redo: string | null };
  readonly moments: readonly Moment[];
  /** The moment that is shown or worked on; volatile, where the document's is not known. */
  readonly moment: number | null;
  readonly engine: EngineState["state"];
  readonly prepared: Prepared | null;
  readonly stopping: boolean;
  readonly progress: Progress | null;
  readonly iteration: number;
  /** By drag: the places its handle went through in this page's sight. */
  readonly trails: Readonly<Record<string, readonly XY[]>>;
  /** How far each drag still had to go, by iteration, in this page's sight. */
  readonly chart: readonly Measured[];
}

export interface Measured {
  readonly iteration: number;
  readonly distances: Readonly<Record<string, number>>;
}

export const EMPTY: Room = {
  you: "",
  role: "owner",
  person: "",
  instance: "",
  capabilities: [],
  model: null,
  seq: 0,
  document: null,
  pending: [],
  people: {},
  presences: {},
  history: { undo: null, redo: null },
  moments: [],
  moment: null,
  engine: "ready",
  prepared: null,
  stopping: false,
  progress: null,
  iteration: 0,
  trails: {},
  chart: [],
};

/** The room after a message of the server. Frames are not the room's business. */
export function receive(room: Room, message: ServerMessage): Room {
  switch (message.type) {
    case "welcome":
      return {
        ...room,
        you: message.you,
        role: message.role,
        person: message.person,
        instance: message.instance,
        capabilities: message.capabilities,
        model: message.model,
        presences: {},
        prepared: null,
      };
    case "resumed":
      return room;
    case "snapshot":
      return afterSnapshot(room, message.seq, message.document);
    case "edited": {
      const next = answered(room, message.op_id);
      if (room.document === null || message.seq <= room.seq) return next;
      const trails = startsAnew(message.op).reduce(without, room.trails);
      return { ...next, seq: message.seq, document: apply(room.document, message.op), trails };
    }
    case "rejected":
      return answered(room, message.op_id);
    case "started": {
      const next = answered(room, message.op_id);
      if (room.document === null || message.seq < room.seq) return next;
      return {
        ...next,
        seq: message.seq,
        document: { ...room.document, run: message.run },
        stopping: false,
        progress: null,
        prepared: null,
        iteration: message.run.iterations,
        // An interrupted run goes on as the same one.
        chart: message.run.id === room.document.run?.id ? room.chart : [],
      };
    }
    case "stopping": {
      const next = answered(room, message.op_id);
      return message.seq < room.seq ? next : { ...next, seq: message.seq, stopping: isRunning(room.document) };
    }
    case "ended": {
      if (room.document === null || message.seq < room.seq) return room;
      return {
        ...room,
        seq: message.seq,
        stopping: false,
        progress: null,
        iteration: Math.max(room.iteration, message.run.iterations),
        // Whatever stop we had asked for, there is nothing left to stop.
        pending: room.pending.filter((request) => request.type !== "stop"),
        document: {
          ...room.document,
          run: message.run,
          result: message.result,
          drags: withTracked(room.document.drags, message.tracked),
        },
      };
    }
    case "was_reset": {
      const next = answered(room, message.op_id);
      if (room.document === null || message.seq < room.seq) return next;
      const document = afterReset(room.document);
      return {
        ...next,
        seq: message.seq,
        document,
        trails: {},
        chart: [],
        progress: null,
        iteration: 0,
        stopping: false,
      };
    }
    case "sought": {
      const next = answered(room, message.op_id);
      if (room.document === null || message.seq < room.seq) return next;
      const iteration = room.moments.find(({ id }) => id === message.moment)?.iteration ?? room.iteration;
      return {
        ...next,
        seq: message.seq,
        iteration,
        moment: message.moment,
        trails: {},
        chart: room.chart.filter((one) => one.iteration <= iteration),
        document: {
          ...room.document,
          moment: message.moment,
          drags: mapValues(room.document.drags, (drag, id) => ({ ...drag, tracked: message.tracked[id] ?? null })),
        },
      };
    }
    case "people":
      return { ...room, people: message.people, role: message.people[room.person]?.role ?? room.role };
    case "presences": {
      const presences = { ...room.presences };
      for (const [person, presence] of Object.entries(message.people)) {
        if (presence === null) delete presences[person];
        else presences[person] = presence;
      }
      return { ...room, presences };
    }
    case "history":
      return { ...room, history: { undo: message.undo, redo: message.redo } };
    case "moments":
      return { ...room, moments: message.moments, moment: message.current };
    case "engine":
      return { ...room, engine: message.state };
    case "prepared":
      return { ...room, prepared: isRunning(room.document) ? null : message };
    case "progress":
      return isRunning(room.document) && room.document?.run?.id === message.run ? { ...room, progress: message } : room;
    case "points": {
      if (room.document === null || room.document.run?.id !== message.run) return room;
      return {
        ...room,
        iteration: message.iteration,
        document: { ...room.document, drags: withTracked(room.document.drags, message.handles) },
        trails: longer(room.trails, room.document.drags, message.handles),
        chart: measured(room.chart, message),
      };
    }
    case "frame":
    case "pong":
    case "error":
      return room;
  }
}

/** The room with one more request of ours under way. */
export function request(room: Room, ours: Request): Room {
  return { ...room, pending: [...room.pending, ours] };
}

/** The document with our own edits already in it. */
export function visible(room: Room): Document | null {
  if (room.document === null) return null;
  return room.pending.reduce<Document>(
    (document, ours) =>
      ours.type === "edit" ? apply(document, ours.op) : ours.type === "reset" ? afterReset(document) : document,
    room.document,
  );
}

/** The drags that edits of ours are about which wait for the connection, or were made while it was lost and are not answered yet. */
export function waitingDrags(room: Room, connected: boolean): readonly string[] {
  return room.pending.flatMap((ours) =>
    ours.type === "edit" && (ours.offline || !connected) && "id" in ours.op && ours.op.type !== "remove_drag"
      ? [ours.op.id]
      : [],
  );
}

/** The request that a rejection answers, while it is still under way. */
export function rejectedRequest(room: Room, rejected: Rejected): Request | undefined {
  return room.pending.find((ours) => ours.op_id === rejected.op_id);
}

export function isRunning(document: Document | null): boolean {
  const run = document?.run;
  return run !== null && run !== undefined && run.outcome === null && !run.interrupted;
}

/** Ours asked for and not answered yet: a run that is about to start. */
export function isStarting(room: Room): boolean {
  return !isRunning(room.document) && room.pending.some((ours) => ours.type === "run");
}

/** Also before the server's answer: the person has pressed Stop, and sees that it was heard. */
export function isStopping(room: Room): boolean {
  return isRunning(room.document) && (room.stopping || room.pending.some((ours) => ours.type === "stop"));
}

/** Where the content of a drag is now. */
export function current(drag: Drag): XY {
  return drag.tracked ?? drag.handle;
}

/** The document after an operation, which the server has accepted or we expect it to. What it cannot apply to changes nothing. */
export function apply(document: Document, op: AppliedOperation): Document {
  switch (op.type) {
    case "add_drag": {
      const drag: Drag = { handle: op.handle, target: op.target, tracked: null };
      return { ...document, drags: { ...document.drags, [op.id]: drag } };
    }
    case "move_drag": {
      const before = document.drags[op.id];
      if (before === undefined) return document;
      const drag: Drag = {
        handle: op.handle ?? before.handle,
        target: op.target ?? before.target,
        tracked: op.handle ? null : before.tracked,
      };
      return { ...document, drags: { ...document.drags, [op.id]: drag } };
    }
    case "remove_drag":
      return { ...document, drags: without(document.drags, op.id) };
    case "add_stroke":
      return withLayer(document, op.stroke);
    case "remove_stroke":
      return { ...document, mask: document.mask.filter((layer) => layer.id !== op.id) };
    case "invert_mask":
      return withLayer(document, { type: "invert", id: op.id });
    case "raster":
      return withLayer(document, op);
    case "clear_mask":
      return { ...document, mask: [] };
    case "set_prompt":
      return { ...document, prompt: op.prompt };
    case "set_settings":
      return { ...document, settings: withSettings(document.settings, op.settings) };
    case "restore":
      return restored(document, op);
  }
}

function withSettings(
  before: Document["settings"],
  changes: Readonly<Record<string, Setting | null>>,
): Document["settings"] {
  const settings = { ...before };
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) delete settings[name];
    else settings[name] = value;
  }
  return settings;
}

function restored(document: Document, op: Restore): Document {
  let drags = document.drags;
  for (const [id, back] of Object.entries(op.drags ?? {})) {
    const before = drags[id];
    if (back === null) drags = without(drags, id);
    else if (before !== undefined) {
      const drag: Drag = {
        handle: back.handle ?? before.handle,
        target: back.target ?? before.target,
        tracked: back.handle ? null : before.tracked,
      };
      drags = { ...drags, [id]: drag };
    } else if (back.handle && back.target)
      drags = { ...drags, [id]: { handle: back.handle, target: back.target, tracked: null } };
  }
  return {
    ...document,
    drags,
    settings: withSettings(document.settings, op.settings ?? {}),
    prompt: op.prompt ?? document.prompt,
    mask: op.mask ?? document.mask,
  };
}

function withLayer(document: Document, layer: MaskLayer): Document {
  if (layer.type === "raster") return { ...document, mask: [layer] };
  if (document.mask.some((other) => other.id === layer.id)) return document;
  return { ...document, mask: [...document.mask, layer] };
}

function afterSnapshot(room: Room, seq: number, document: Document): Room {
  const same = room.document?.run?.id === document.run?.id && isRunning(document);
  return {
    ...room,
    seq,
    document,
    stopping: same && room.stopping,
    progress: same ? room.progress : null,
    iteration: Math.max(document.run?.iterations ?? 0, same ? room.iteration : 0),
    trails: same ? room.trails : {},
    chart: same ? room.chart : [],
  };
}

function afterReset(document: Document): Document {
  return { ...document, run: null, result: null, moment: null, drags: asPutDown(document.drags) };
}

function answered(room: Room, op_id: string): Room {
  return { ...room, pending: room.pending.filter((ours) => ours.op_id !== op_id) };
}

function asPutDown(drags: Document["drags"]): Document["drags"] {
  return mapValues(drags, (drag) => ({ ...drag, tracked: null }));
}

function withTracked(drags: Document["drags"], places: Readonly<Record<string, XY>>): Document["drags"] {
  return mapValues(drags, (drag, id) => ({ ...drag, tracked: places[id] ?? drag.tracked }));
}

function longer(
  trails: Room["trails"],
  drags: Document["drags"],
  places: Readonly<Record<string, XY>>,
): Room["trails"] {
  const next: Record<string, readonly XY[]> = {};
  for (const [id, drag] of Object.entries(drags)) {
    const place = places[id];
    const trail = trails[id] ?? [current(drag)];
    next[id] = place === undefined ? trail : [...trail, place].slice(-TRAIL);
  }
  return next;
}

/** Longer by one measurement; what is at or after its iteration is another branch's. Every other old one goes when there are many. */
function measured(
  chart: Room["chart"],
  { iteration, distances }: Pick<Points, "iteration" | "distances">,
): Room["chart"] {
  const before = (chart.at(-1)?.iteration ?? -1) < iteration ? chart : chart.filter((one) => one.iteration < iteration);
  const kept = before.length < MEASURED ? before : before.filter((_, index) => index % 2 === 0);
  return [...kept, { iteration, distances }];
}

/** The drags whose trails an operation ends. */
function startsAnew(op: AppliedOperation): readonly string[] {
  if (op.type === "remove_drag" || (op.type === "move_drag" && op.handle)) return [op.id];
  if (op.type === "restore")
    return Object.entries(op.drags ?? {}).flatMap(([id, back]) => (back === null || back.handle ? [id] : []));
  return [];
}

function without<T>(record: Readonly<Record<string, T>>, key: string): Readonly<Record<string, T>> {
  const { [key]: _, ...rest } = record;
  return rest;
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, change: (value: T, key: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value, key)]));
}

/** Why the last run ended, or null while one goes on or before the first. */
export function lastEnd(document: Document | null): Run | null {
  const run = document?.run;
  return run && (run.outcome !== null || run.interrupted) ? run : null;
}
