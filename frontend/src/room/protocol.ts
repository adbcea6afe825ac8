/**
 * The messages of `livedrag.v1`, in both directions. They mirror the server's protocol module, which says who sends what,
 * and when; recorded messages check that the two agree.
 *
 * Points are `[x, y]` in pixels of the uploaded picture, with the origin at the centre of its top left pixel.
 */

export const VERSION = "livedrag.v1";
export const MAX_PROMPT = 1000;
/** Longest name of a person. */
export const MAX_NAME = 60;
/** Longest name of a room. */
export const MAX_TITLE = 100;
export const MAX_STROKE_POINTS = 2000;

export type XY = readonly [x: number, y: number];
export type Setting = boolean | number | string;

// The document ------------------------------------------------------------------------------------------------------

export interface Drag {
  readonly handle: XY;
  readonly target: XY;
  /** Where the last run left the content; null before a run and after the handle was moved. */
  readonly tracked: XY | null;
  /** The last run followed this drag to its target, but the picture shows that its content did not follow. */
  readonly lost?: boolean;
}

export interface Stroke {
  readonly type: "stroke";
  readonly id: string;
  readonly mode: "paint" | "erase";
  /** In pixels of the picture. */
  readonly radius: number;
  /** From 0, a hard edge, to 1, where the brush fades over its whole radius. */
  readonly softness?: number;
  readonly points: readonly XY[];
  /** Whether it is the area that the points enclose (even-odd), whatever the radius. */
  readonly fill?: boolean;
}

/** Swaps what may change and what may not. */
export interface Invert {
  readonly type: "invert";
  readonly id: string;
}

/** Moves the border of the editable area outwards, or inwards if negative. */
export interface Grow {
  readonly type: "grow";
  readonly id: string;
  /** Of the picture. */
  readonly pixels: number;
}

export interface Raster {
  readonly type: "raster";
  readonly id: string;
  readonly sha256: string;
}

export type MaskLayer = Stroke | Raster | Invert | Grow;

export interface Picture {
  readonly sha256: string;
  readonly width: number;
  readonly height: number;
  /** How the server generated it; null or absent if it was uploaded. */
  readonly generation?: Generation | null;
}

export interface Generation {
  readonly prompt: string;
  readonly seed: number;
  readonly guidance: number;
  readonly ddim_steps: number;
  readonly model: string;
}

export type Stage = "idle" | "queued" | "loading" | "generating" | "fitting" | "inverting" | "dragging" | "rendering";
export type Outcome = "arrived" | "stopped" | "exhausted" | "failed" | "kept";

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
  /** The moment of the timeline that it shows; null or absent in rooms of older versions. */
  readonly moment?: number | null;
}

/** What the picture shows, and where the content of each drag is. */
export interface Content {
  readonly picture: Picture;
  readonly run: Run | null;
  readonly result: Result | null;
  readonly moment: number | null;
  readonly handles: Readonly<Record<string, XY>>;
  readonly tracked: Readonly<Record<string, XY>>;
}

/** What people have done with a branch of the timeline. */
export interface BranchMark {
  readonly name?: string;
  /** Whether it is left out of the list. */
  readonly removed?: boolean;
}

export interface LoraChoice {
  readonly name: string;
  readonly weight: number;
}

/** What a room edits with. Without a name it is the model that the server was started with. */
export interface ModelChoice {
  readonly name: string;
  readonly loras: readonly LoraChoice[];
  /** "" is the model's own autoencoder. */
  readonly vae: string;
}

export interface Document {
  readonly picture: Picture;
  readonly drags: Readonly<Record<string, Drag>>;
  readonly mask: readonly MaskLayer[];
  readonly prompt: string;
  readonly settings: Readonly<Record<string, Setting>>;
  readonly run: Run | null;
  readonly result: Result | null;
  /** The moment of the timeline that the last run ended at, or that was jumped to since. */
  readonly moment: number | null;
  /** By a moment of theirs. Absent on servers of older versions. */
  readonly branches?: Readonly<Record<string, BranchMark>>;
  /** Places that stay as they are. */
  readonly pins: Readonly<Record<string, XY>>;
  /** The room's name; "" if it has none. */
  readonly title: string;
  /** Absent on servers of older versions. */
  readonly model?: ModelChoice | undefined;
}

// Operations --------------------------------------------------------------------------------------------------------

export type Operation =
  | { readonly type: "add_drag"; readonly id: string; readonly handle: XY; readonly target: XY }
  | { readonly type: "move_drag"; readonly id: string; readonly handle?: XY | null; readonly target?: XY | null }
  | { readonly type: "remove_drag"; readonly id: string }
  | { readonly type: "add_stroke"; readonly stroke: Stroke }
  | { readonly type: "remove_stroke"; readonly id: string }
  | { readonly type: "invert_mask"; readonly id: string }
  | { readonly type: "grow_mask"; readonly id: string; readonly pixels: number }
  | { readonly type: "clear_mask" }
  | { readonly type: "set_prompt"; readonly prompt: string }
  | { readonly type: "set_settings"; readonly settings: Readonly<Record<string, Setting | null>> }
  | { readonly type: "mark_branch"; readonly moment: number; readonly mark?: BranchMark | null }
  /** Null removes the pin. */
  | { readonly type: "set_pin"; readonly id: string; readonly at: XY | null }
  | { readonly type: "set_title"; readonly title: string }
  /** Answered when the model is loaded. */
  | { readonly type: "set_model"; readonly model: ModelChoice };

/** Made by the server alone, for an undo, a redo or the return to an earlier result: puts properties back. */
export interface Restore {
  readonly type: "restore";
  /** Null removes the drag. */
  readonly drags?: Readonly<Record<string, { readonly handle?: XY | null; readonly target?: XY | null } | null>>;
  readonly settings?: Readonly<Record<string, Setting | null>>;
  readonly prompt?: string | null;
  readonly mask?: readonly MaskLayer[] | null;
  /** Undoes a run, a jump, a reset or a change of the base picture. */
  readonly content?: Content | null;
  readonly branches?: Readonly<Record<string, BranchMark | null>>;
  readonly pins?: Readonly<Record<string, XY | null>>;
  readonly title?: string | null;
  readonly model?: ModelChoice | null;
}

export type AppliedOperation = Operation | Raster | Restore;

// What clients send -------------------------------------------------------------------------------------------------

export interface Hello {
  readonly type: "hello";
  readonly version: string;
  readonly secret?: string;
  readonly ticket?: string | null;
  readonly name?: string;
  readonly since?: number | null;
  /** The `welcome.instance` that `since` belongs to. */
  readonly of?: string | null;
  readonly formats?: readonly string[];
}

export interface Edit {
  readonly type: "edit";
  readonly op_id: string;
  /** The `seq` seen when the edit was made. */
  readonly base: number;
  readonly op: Operation;
  /** Made offline: refused as stale if others have changed the same property since. */
  readonly offline?: boolean;
}

/** Changes the room, and is answered under its `op_id`. */
export type Request =
  | Edit
  | { readonly type: "run"; readonly op_id: string }
  | { readonly type: "stop"; readonly op_id: string }
  | { readonly type: "reset"; readonly op_id: string }
  | { readonly type: "edit_further"; readonly op_id: string }
  | { readonly type: "restore_run"; readonly op_id: string; readonly run: string }
  | { readonly type: "undo"; readonly op_id: string }
  | { readonly type: "redo"; readonly op_id: string }
  | { readonly type: "seek"; readonly op_id: string; readonly moment: number };

export type PointingTool = "" | "points" | "brush" | "eraser" | "hand";

export interface MyPresence {
  readonly type: "presence";
  readonly cursor: XY | null;
  readonly selected: string | null;
  readonly tool: PointingTool;
  readonly busy: boolean;
  /** What the person sees of the picture; null for all of it. */
  readonly view?: Sight | null;
}

/** The centre of what is seen of the picture, and its width, in pixels of the picture. */
export type Sight = readonly [x: number, y: number, width: number];

export type ClientMessage =
  | Hello
  | Request
  | MyPresence
  | { readonly type: "name"; readonly name: string }
  | { readonly type: "ack_frame"; readonly frame: number }
  | { readonly type: "ping"; readonly time: number };

// What the server sends ---------------------------------------------------------------------------------------------

/** A model, a LoRA or an autoencoder of the server. */
export interface CatalogEntry {
  readonly name: string;
  readonly kind: "model" | "lora" | "vae" | "other";
  readonly architecture: string;
  /** Of its weights. */
  readonly bytes: number;
  /** Why it can't be used, or "". */
  readonly problem: string;
  readonly info: ModelInfo | null;
  /** It has no autoencoder, and is chosen together with one. */
  readonly needs_vae: boolean;
}

export interface ModelCatalog {
  /** The name of the model that the server was started with. */
  readonly default: string;
  readonly entries: readonly CatalogEntry[];
}

export interface ModelInfo {
  readonly name: string;
  readonly kind: string;
  readonly settings: Readonly<Record<string, Setting>>;
  readonly presets: readonly string[];
  /** The smallest and largest value of each numeric setting, inclusive. */
  readonly ranges: Readonly<Record<string, readonly [low: number, high: number]>>;
  /** The settings that may change during a run. */
  readonly live: readonly string[];
  /** The allowed words of each setting that is a list of words, separated by spaces. */
  readonly words: Readonly<Record<string, readonly string[]>>;
  /** The values of each text setting that has only a few. */
  readonly choices: Readonly<Record<string, readonly string[]>>;
  /** Why each preset that destroys pictures on this model does so. */
  readonly unsuitable: Readonly<Record<string, string>>;
}

export type Role = "owner" | "editor" | "viewer";

export interface RoomLimits {
  readonly upload_bytes: number;
  readonly pixels: number;
  readonly drags: number;
  readonly prompt: number;
  readonly message_bytes: number;
  readonly presence_rate: number;
}

export interface Welcome {
  readonly type: "welcome";
  readonly version: string;
  readonly room: string;
  readonly you: string;
  readonly role: Role;
  readonly instance: string;
  /** This person, over reconnects and tabs; `you` is this connection. */
  readonly person: string;
  readonly capabilities: readonly string[];
  readonly limits: RoomLimits;
  readonly base: string;
  /** The script of the page that the server serves; "" if it serves none. */
  readonly page: string;
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
  readonly op: AppliedOperation;
  readonly undoes?: string | null;
  readonly redoes?: string | null;
}

export type Reason =
  "invalid" | "stale" | "busy" | "forbidden" | "too_many" | "unknown" | "nothing" | "slow_down" | "damaged";

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
  readonly moment?: number | null;
  /** The drags whose content did not follow. */
  readonly lost?: readonly string[];
}

/** Another picture is edited now: the result, or an uploaded one. */
export interface BaseReplaced {
  readonly type: "base_replaced";
  readonly seq: number;
  readonly op_id: string;
  readonly by: string;
  readonly picture: Picture;
}

export interface WasReset {
  readonly type: "was_reset";
  readonly seq: number;
  readonly op_id: string;
  readonly by: string;
}

export interface Person {
  readonly name: string;
  /** "#rrggbb" */
  readonly colour: string;
  readonly role: Role;
  readonly here: boolean;
}

/** Everyone who is here or ever changed something, by person. */
export interface People {
  readonly type: "people";
  readonly people: Readonly<Record<string, Person>>;
}

export type Presence = Omit<MyPresence, "type">;

/** Only the people whose presence has changed; null for those who have left. */
export interface Presences {
  readonly type: "presences";
  readonly people: Readonly<Record<string, Presence | null>>;
}

/** What your undo and redo would change; null for nothing. */
export interface History {
  readonly type: "history";
  readonly undo: string | null;
  readonly redo: string | null;
}

export interface Resumed {
  readonly type: "resumed";
  readonly seq: number;
}

/** What one record of the room's log did. */
export interface LogEntry {
  readonly seq: number;
  readonly by: string;
  readonly type: string;
  readonly op_id: string;
  readonly undoes: string | null;
  readonly redoes: string | null;
}

/** What was done lately, oldest first. */
export interface Log {
  readonly type: "log";
  readonly entries: readonly LogEntry[];
}

/** The room went to a stored iteration. */
export interface Seeked {
  readonly type: "seeked";
  readonly seq: number;
  readonly op_id: string;
  readonly by: string;
  readonly moment: number;
  readonly tracked: Readonly<Record<string, XY>>;
}

export interface Moment {
  readonly id: number;
  readonly parent: number | null;
  readonly iteration: number;
  readonly time: number;
  readonly thumbnail: boolean;
}

export interface Moments {
  readonly type: "moments";
  readonly run?: string | null;
  readonly moments: readonly Moment[];
  readonly current: number | null;
}

export interface EngineState {
  readonly type: "engine";
  readonly state: "ready" | "restarting" | "starting";
  readonly message: string | null;
}

/** The progress of preparing the picture before a run. */
export interface Prepared {
  readonly type: "prepared";
  readonly stage: "loading" | "generating" | "fitting" | "inverting" | "ready" | "failed";
  readonly step: number;
  readonly steps: number;
  readonly seconds_left: number | null;
  /** The end of a prompt that is too long for the model. */
  readonly ignored_prompt: string;
  /** The model does not know pictures of this kind. */
  readonly unknown: boolean;
}

/** The room has another model. */
export interface RoomModel {
  readonly type: "model";
  readonly model: ModelInfo;
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
  /** The distances from where the picture shows the content, of the drags whose content was searched. */
  readonly content?: Readonly<Record<string, number>>;
  /** The drags whose content did not follow. */
  readonly lost?: readonly string[];
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
  | BaseReplaced
  | People
  | Presences
  | History
  | Resumed
  | Log
  | Seeked
  | Moments
  | EngineState
  | Prepared
  | RoomModel
  | Progress
  | Points
  | Frame
  | { readonly type: "pong"; readonly time: number }
  | Fault;

/** The codes that the server closes a WebSocket with. */
export const Close = {
  BAD_MESSAGE: 4400,
  PASSWORD: 4401,
  WRONG_SECRET: 4403,
  UNKNOWN_ROOM: 4404,
  UNKNOWN_VERSION: 4406,
  TIMED_OUT: 4408,
  TOO_MANY: 4409,
  ROOM_DELETED: 4410,
  REMOVED: 4413,
  GOING_AWAY: 4503,
} as const;
