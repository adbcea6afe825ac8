/**
 * Every message of `livedrag.v1`, both ways: the mirror of `server/protocol.py`, which says who sends what, and when.
 *
 * Points are `[x, y]` in pixels of the uploaded picture, the origin at the centre of its top left pixel.
 */

import { decode, encode } from "@msgpack/msgpack";

export const VERSION = "livedrag.v1";
export const MAX_DRAGS = 64;
export const MAX_PROMPT = 1000;
export const MAX_STROKE_POINTS = 2000;

export type XY = readonly [x: number, y: number];
export type Setting = boolean | number | string;

// The document ------------------------------------------------------------------------------------------------------

export interface Drag {
  readonly handle: XY;
  readonly target: XY;
  /** Where the last run left the content; null before a run and after a re-grab. */
  readonly tracked: XY | null;
}

export interface Stroke {
  readonly type: "stroke";
  readonly id: string;
  readonly mode: "paint" | "erase";
  /** In pixels of the picture. */
  readonly radius: number;
  readonly points: readonly XY[];
}

export interface Raster {
  readonly type: "raster";
  readonly id: string;
  readonly sha256: string;
}

export type MaskLayer = Stroke | Raster;

export interface Picture {
  readonly sha256: string;
  readonly width: number;
  readonly height: number;
}

export type Stage = "idle" | "queued" | "loading" | "fitting" | "inverting" | "dragging" | "rendering";
export type Outcome = "arrived" | "stopped" | "exhausted" | "failed";

export interface Run {
  readonly id: string;
  readonly by: string;
  readonly iterations: number;
  readonly outcome: Outcome | null;
  readonly interrupted: boolean;
  readonly message: string | null;
}

export interface Result {
  readonly sha256: string;
  readonly run: string;
}

export interface Document {
  readonly picture: Picture;
  readonly drags: Readonly<Record<string, Drag>>;
  readonly mask: readonly MaskLayer[];
  readonly prompt: string;
  readonly settings: Readonly<Record<string, Setting>>;
  readonly run: Run | null;
  readonly result: Result | null;
}

// Operations --------------------------------------------------------------------------------------------------------

export type Operation =
  | { readonly type: "add_drag"; readonly id: string; readonly handle: XY; readonly target: XY }
  | { readonly type: "move_drag"; readonly id: string; readonly handle?: XY | null; readonly target?: XY | null }
  | { readonly type: "remove_drag"; readonly id: string }
  | { readonly type: "add_stroke"; readonly stroke: Stroke }
  | { readonly type: "clear_mask" }
  | { readonly type: "set_prompt"; readonly prompt: string }
  | { readonly type: "set_settings"; readonly settings: Readonly<Record<string, Setting | null>> };

// What clients send -------------------------------------------------------------------------------------------------

export interface Hello {
  readonly type: "hello";
  readonly version: string;
  readonly secret: string;
  readonly name?: string;
  readonly since?: number | null;
  readonly formats?: readonly string[];
}

export interface Edit {
  readonly type: "edit";
  readonly op_id: string;
  /** The `seq` seen when the edit was made. */
  readonly base: number;
  readonly op: Operation;
}

/** What changes the room and is answered under its `op_id`. */
export type Request =
  | Edit
  | { readonly type: "run"; readonly op_id: string }
  | { readonly type: "stop"; readonly op_id: string }
  | { readonly type: "reset"; readonly op_id: string };

export type ClientMessage =
  | Hello
  | Request
  | { readonly type: "ack_frame"; readonly frame: number }
  | { readonly type: "ping"; readonly time: number };

// What the server sends ---------------------------------------------------------------------------------------------

export interface ModelInfo {
  readonly name: string;
  readonly kind: string;
  readonly settings: Readonly<Record<string, Setting>>;
  readonly presets: readonly string[];
  /** The least and the largest value of each setting that is a number, both included. */
  readonly ranges: Readonly<Record<string, readonly [low: number, high: number]>>;
}

export interface Welcome {
  readonly type: "welcome";
  readonly version: string;
  readonly room: string;
  readonly you: string;
  readonly role: "owner" | "editor" | "viewer";
  readonly model: ModelInfo;
  /** Seconds between pings. */
  readonly heartbeat: number;
  /** Seconds of silence after which the connection counts as lost. */
  readonly deadline: number;
  readonly frame_credits: number;
}

export interface Snapshot {
  readonly type: "snapshot";
  readonly seq: number;
  readonly document: Document;
}

export interface Edited {
  readonly type: "edited";
  readonly seq: number;
  readonly op_id: string;
  readonly by: string;
  readonly op: Operation | Raster;
}

export type Reason = "invalid" | "stale" | "busy" | "forbidden" | "too_many" | "unknown";

export interface Rejected {
  readonly type: "rejected";
  readonly op_id: string;
  readonly reason: Reason;
  readonly message: string;
}

export interface Started {
  readonly type: "started";
  readonly seq: number;
  readonly op_id: string;
  readonly run: Run;
}

export interface Stopping {
  readonly type: "stopping";
  readonly seq: number;
  readonly op_id: string;
  readonly by: string;
}

export interface Ended {
  readonly type: "ended";
  readonly seq: number;
  readonly run: Run;
  readonly tracked: Readonly<Record<string, XY>>;
  readonly result: Result | null;
}

export interface WasReset {
  readonly type: "was_reset";
  readonly seq: number;
  readonly op_id: string;
  readonly by: string;
}

export interface People {
  readonly type: "people";
  readonly people: Readonly<Record<string, string>>;
}

export interface Progress {
  readonly type: "progress";
  readonly run: string;
  readonly stage: Stage;
  readonly step: number;
  readonly steps: number;
  readonly seconds: number;
  readonly seconds_left: number | null;
  readonly loss: number | null;
}

export interface Points {
  readonly type: "points";
  readonly run: string;
  readonly iteration: number;
  readonly handles: Readonly<Record<string, XY>>;
  readonly distances: Readonly<Record<string, number>>;
  readonly loss: number;
}

export interface Frame {
  readonly type: "frame";
  readonly frame: number;
  readonly run: string;
  readonly stage: Stage;
  readonly iteration: number;
  readonly format: "webp" | "jpeg";
  readonly width: number;
  readonly height: number;
  readonly time: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

export interface Fault {
  readonly type: "error";
  readonly reason: string;
  readonly message: string;
}

export type ServerMessage =
  | Welcome
  | Snapshot
  | Edited
  | Rejected
  | Started
  | Stopping
  | Ended
  | WasReset
  | People
  | Progress
  | Points
  | Frame
  | { readonly type: "pong"; readonly time: number }
  | Fault;

/** Close codes after which trying again would meet the same answer. */
export const Close = {
  BAD_MESSAGE: 4400,
  WRONG_SECRET: 4403,
  UNKNOWN_ROOM: 4404,
  UNKNOWN_VERSION: 4406,
  TIMED_OUT: 4408,
  ROOM_DELETED: 4410,
} as const;

export class ProtocolError extends Error {}

/** Pack a message as one MessagePack map; fields that are undefined are left out. */
export function encodeMessage(message: ClientMessage): Uint8Array<ArrayBuffer> {
  return encode(message, { ignoreUndefined: true });
}

const SERVER_TYPES: ReadonlySet<string> = new Set<ServerMessage["type"]>([
  "welcome",
  "snapshot",
  "edited",
  "rejected",
  "started",
  "stopping",
  "ended",
  "was_reset",
  "people",
  "progress",
  "points",
  "frame",
  "pong",
  "error",
]);

/**
 * Read what the server sent. The server is trusted with the shape of its own records; what is asked here is that it is
 * a record at all. Null for a type of a newer server, which older pages pass over. Throws `ProtocolError`.
 */
export function decodeMessage(data: ArrayBuffer | Uint8Array): ServerMessage | null {
  let value: unknown;
  try {
    value = decode(data);
  } catch (error) {
    throw new ProtocolError(`not a MessagePack message: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (typeof value !== "object" || value === null || !("type" in value) || typeof value.type !== "string") {
    throw new ProtocolError(`a message has to be a map with a type, not ${JSON.stringify(value)?.slice(0, 80)}`);
  }
  return SERVER_TYPES.has(value.type) ? (value as ServerMessage) : null;
}

/** An id nobody else makes up; also where the page is not a secure context and `crypto.randomUUID` is missing. */
export function makeId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
