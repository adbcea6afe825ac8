/**
 * What the page knows of a room; pure. It holds the server's document, our requests that are still unanswered, and the
 * volatile news of a run. `receive` is the reducer over server messages; `visibleDocument` adds our own edits.
 */

import {
  applyOperation,
  currentPlace,
  isRunning,
  movedHandles,
  movedPoints,
  rebased,
  resetDocument,
  without,
  withLost,
  withTracked,
  withTrackedOnly,
  withValues,
} from "./document.ts";
import type {
  Document,
  EngineState,
  ModelInfo,
  Moment,
  Person,
  Points,
  Prepared,
  Presence,
  Progress,
  Rejected,
  Request,
  Role,
  ServerMessage,
  XY,
} from "./protocol.ts";

const MAX_TRAIL_LENGTH = 400;
const MAX_CHART_LENGTH = 400;

export interface Room {
  /** This connection. */
  readonly you: string;
  readonly role: Role;
  /** This person, over reconnects and tabs. */
  readonly person: string;
  /** Identifies the room's log; a `seq` means nothing in another one. */
  readonly instance: string;
  readonly capabilities: readonly string[];
  readonly model: ModelInfo | null;
  readonly seq: number;
  /** As the server last sent it; null until the first snapshot. */
  readonly document: Document | null;
  /** Our unanswered requests, in order; re-sent after a reconnect. */
  readonly pending: readonly Request[];
  /** Everyone who is here or ever changed something. */
  readonly people: Readonly<Record<string, Person>>;
  readonly presences: Readonly<Record<string, Presence>>;
  /** What our undo and redo would change. */
  readonly history: { readonly undo: string | null; readonly redo: string | null };
  readonly moments: readonly Moment[];
  /** The moment the room is at, as the engine reports it; the document's may be older. */
  readonly moment: number | null;
  readonly engine: EngineState["state"];
  readonly prepared: Prepared | null;
  /** The end of the prompt that the model does not read, as of the last preparation. */
  readonly ignoredPrompt: string;
  /** The model has turned out not to know pictures of this kind. */
  readonly unknownPicture: boolean;
  readonly stopping: boolean;
  readonly progress: Progress | null;
  readonly iteration: number;
  /** By drag: the places of its handle since this page was opened. */
  readonly trails: Readonly<Record<string, readonly XY[]>>;
  /** By drag: the distance from where the picture last showed its content to its target. */
  readonly content: Readonly<Record<string, number>>;
  /** The distances left, by iteration, since this page was opened. */
  readonly chart: readonly Measurement[];
}

export interface Measurement {
  readonly iteration: number;
  readonly distances: Readonly<Record<string, number>>;
}

export const EMPTY_ROOM: Room = {
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
  ignoredPrompt: "",
  unknownPicture: false,
  stopping: false,
  progress: null,
  iteration: 0,
  trails: {},
  content: {},
  chart: [],
};

type Message<T extends ServerMessage["type"]> = Extract<ServerMessage, { readonly type: T }>;
type Reducers = { readonly [T in ServerMessage["type"]]: (room: Room, message: Message<T>) => Room };

/** The room after a message from the server. */
export function receive<T extends ServerMessage["type"]>(room: Room, message: Message<T>): Room {
  const reduce: (room: Room, message: Message<T>) => Room = REDUCERS[message.type as T];
  return reduce(room, message);
}

const unchanged = (room: Room): Room => room;

const REDUCERS: Reducers = {
  welcome: (room, { you, role, person, instance, capabilities, model }) => ({
    ...room,
    you,
    role,
    person,
    instance,
    capabilities,
    model,
    presences: {},
    prepared: null,
  }),
  resumed: unchanged,
  log: unchanged,
  snapshot: afterSnapshot,
  edited: afterEdit,
  rejected: (room, { op_id }) => withoutRequest(room, op_id),
  started: afterStart,
  stopping: (room, { op_id, seq }) => {
    const next = withoutRequest(room, op_id);
    return seq < room.seq ? next : { ...next, seq, stopping: isRunning(room.document) };
  },
  ended: afterEnd,
  was_reset: afterReset,
  seeked: afterSeek,
  base_replaced: afterReplacedBase,
  people: (room, { people }) => ({ ...room, people, role: people[room.person]?.role ?? room.role }),
  presences: (room, { people }) => ({ ...room, presences: withValues(room.presences, people) }),
  history: (room, { undo, redo }) => ({ ...room, history: { undo, redo } }),
  moments: (room, { moments, current }) => ({ ...room, moments, moment: current }),
  engine: (room, { state }) => ({ ...room, engine: state }),
  prepared: (room, message) => ({
    ...room,
    prepared: isRunning(room.document) ? null : message,
    ignoredPrompt: message.ignored_prompt,
    unknownPicture: message.stage === "ready" ? message.unknown : room.unknownPicture,
  }),
  model: (room, { model }) => ({ ...room, model, unknownPicture: false }),
  progress: (room, message) =>
    isRunning(room.document) && room.document?.run?.id === message.run ? { ...room, progress: message } : room,
  points: afterPoints,
  frame: unchanged,
  pong: unchanged,
  error: unchanged,
};

/** The room with one more request of ours pending. */
export function withRequest(room: Room, request: Request): Room {
  return { ...room, pending: [...room.pending, request] };
}

/** The document with our own pending edits applied. */
export function visibleDocument(room: Room): Document | null {
  if (room.document === null) return null;
  return room.pending.reduce<Document>((document, request) => {
    if (request.type === "edit") return applyOperation(document, request.op);
    return request.type === "reset" ? resetDocument(document) : document;
  }, room.document);
}

/** The drags of our edits that wait for the connection, or were made offline and are not answered yet. */
export function waitingDrags(room: Room, connected: boolean): readonly string[] {
  return room.pending.flatMap((request) =>
    request.type === "edit" &&
    (request.offline || !connected) &&
    "id" in request.op &&
    request.op.type !== "remove_drag"
      ? [request.op.id]
      : [],
  );
}

/** The pending request that a rejection answers. */
export function rejectedRequest(room: Room, rejected: Rejected): Request | undefined {
  return room.pending.find(({ op_id }) => op_id === rejected.op_id);
}

/** Whether a run was requested and has not started yet. */
export function isStarting(room: Room): boolean {
  return !isRunning(room.document) && room.pending.some(({ type }) => type === "run");
}

/** Already true before the server's answer, so that pressing Stop shows at once. */
export function isStopping(room: Room): boolean {
  return isRunning(room.document) && (room.stopping || room.pending.some(({ type }) => type === "stop"));
}

function withoutRequest(room: Room, op_id: string): Room {
  return { ...room, pending: room.pending.filter((request) => request.op_id !== op_id) };
}

function afterSnapshot(room: Room, { seq, document }: Message<"snapshot">): Room {
  const same = room.document?.run?.id === document.run?.id && isRunning(document);
  return {
    ...room,
    seq,
    document,
    stopping: same && room.stopping,
    progress: same ? room.progress : null,
    iteration: Math.max(document.run?.iterations ?? 0, same ? room.iteration : 0),
    trails: same ? room.trails : {},
    content: same ? room.content : {},
    chart: same ? room.chart : [],
  };
}

function afterEdit(room: Room, { seq, op_id, op }: Message<"edited">): Room {
  const next = withoutRequest(room, op_id);
  if (room.document === null || seq <= room.seq) return next;
  const document = applyOperation(room.document, op);
  if (op.type === "restore" && op.content) return { ...next, seq, ...withContentOf(document) };
  const [trails, content] = [
    movedHandles(op).reduce(without, room.trails),
    movedPoints(op).reduce(without, room.content),
  ];
  return { ...next, seq, document, trails, content };
}

/** The picture shows something else now: what was measured of the last run is over. */
function withContentOf(document: Document): Partial<Room> {
  const iteration = document.run?.iterations ?? 0;
  const measured = { trails: {}, content: {}, chart: [], progress: null };
  return { document, moment: document.moment, iteration, ...measured, stopping: false };
}

function afterStart(room: Room, { seq, op_id, run }: Message<"started">): Room {
  const next = withoutRequest(room, op_id);
  if (room.document === null || seq < room.seq) return next;
  return {
    ...next,
    seq,
    document: { ...room.document, run, drags: withLost(room.document.drags, []) },
    content: {},
    stopping: false,
    progress: null,
    prepared: null,
    iteration: run.iterations,
    // An interrupted run is resumed under the same id.
    chart: run.id === room.document.run?.id ? room.chart : [],
  };
}

function afterEnd(room: Room, { seq, run, result, tracked, moment, lost = [] }: Message<"ended">): Room {
  if (room.document === null || seq < room.seq) return room;
  return {
    ...room,
    seq,
    stopping: false,
    progress: null,
    iteration: Math.max(room.iteration, run.iterations),
    // There is nothing left to stop.
    pending: room.pending.filter(({ type }) => type !== "stop"),
    document: {
      ...room.document,
      run,
      result,
      moment: moment ?? room.document.moment,
      drags: withLost(withTracked(room.document.drags, tracked), lost),
    },
  };
}

function afterReset(room: Room, { seq, op_id }: Message<"was_reset">): Room {
  const next = withoutRequest(room, op_id);
  if (room.document === null || seq < room.seq) return next;
  const document = resetDocument(room.document);
  return { ...next, seq, document, trails: {}, content: {}, chart: [], progress: null, iteration: 0, stopping: false };
}

function afterReplacedBase(room: Room, { seq, op_id, picture }: Message<"base_replaced">): Room {
  const next = withoutRequest(room, op_id);
  if (room.document === null || seq < room.seq) return next;
  return { ...next, seq, ...withContentOf(rebased(room.document, picture)), prepared: null };
}

function afterSeek(room: Room, { seq, op_id, moment, tracked }: Message<"seeked">): Room {
  const next = withoutRequest(room, op_id);
  if (room.document === null || seq < room.seq) return next;
  const iteration = room.moments.find(({ id }) => id === moment)?.iteration ?? room.iteration;
  return {
    ...next,
    seq,
    iteration,
    moment,
    trails: {},
    content: {},
    chart: room.chart.filter((measurement) => measurement.iteration <= iteration),
    document: { ...room.document, moment, drags: withTrackedOnly(room.document.drags, tracked) },
  };
}

function afterPoints(room: Room, message: Message<"points">): Room {
  if (room.document === null || room.document.run?.id !== message.run) return room;
  return {
    ...room,
    iteration: message.iteration,
    document: {
      ...room.document,
      drags: withLost(withTracked(room.document.drags, message.handles), message.lost ?? []),
    },
    content: { ...room.content, ...message.content },
    trails: extendedTrails(room.trails, room.document.drags, message.handles),
    chart: withMeasurement(room.chart, message),
  };
}

function extendedTrails(
  trails: Room["trails"],
  drags: Document["drags"],
  places: Readonly<Record<string, XY>>,
): Room["trails"] {
  const next: Record<string, readonly XY[]> = {};
  for (const [id, drag] of Object.entries(drags)) {
    const place = places[id];
    const trail = trails[id] ?? [currentPlace(drag)];
    next[id] = place === undefined ? trail : [...trail, place].slice(-MAX_TRAIL_LENGTH);
  }
  return next;
}

/** Measurements at or after the new iteration belong to another branch and are dropped. A full chart is thinned by half. */
function withMeasurement(
  chart: Room["chart"],
  { iteration, distances }: Pick<Points, "iteration" | "distances">,
): Room["chart"] {
  const before = (chart.at(-1)?.iteration ?? -1) < iteration ? chart : chart.filter((one) => one.iteration < iteration);
  const thinned = before.length < MAX_CHART_LENGTH ? before : before.filter((_, index) => index % 2 === 0);
  return [...thinned, { iteration, distances }];
}
