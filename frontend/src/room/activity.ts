/** The list of who did what in a room, built from the server's messages; pure. */

import type { AppliedOperation, LogEntry, ServerMessage } from "./protocol.ts";
import type { Room } from "./room.ts";

export type ActivityKind =
  | AppliedOperation["type"]
  | "erase"
  | "undo"
  | "redo"
  | "started"
  | "stopping"
  | "arrived"
  | "stopped"
  | "exhausted"
  | "failed"
  | "kept"
  | "was_reset"
  | "base_replaced"
  | "seeked";

export interface Activity {
  readonly seq: number;
  /** A person's id, or "" for the run itself. */
  readonly by: string;
  readonly kind: ActivityKind;
  /** The number of the point that was changed, if it was one. */
  readonly point: number | null;
  /** How often in a row. */
  readonly times: number;
  /** What an undo names them by. */
  readonly ops: readonly string[];
  /** Those of `ops` that are undone. */
  readonly undone: readonly string[];
}

const MAX_ACTIVITIES = 100;

/** The list, newest last, after a message that `room` has not received yet. */
export function withActivity(list: readonly Activity[], room: Room, message: ServerMessage): readonly Activity[] {
  if (message.type === "snapshot") return room.document === null ? list : [];
  if (message.type === "log") return message.entries.reduce(withEntry, []);
  const next = activityOf(room, message);
  if (next === null || (list.at(-1)?.seq ?? 0) >= next.seq) return list;
  const { undoes, redoes } = message.type === "edited" ? message : {};
  return appended(withUndone(list, undoes ?? null, redoes ?? null), next);
}

/** Whether all of it has been undone. */
export function isUndone({ ops, undone }: Activity): boolean {
  return ops.length > 0 && ops.every((op) => undone.includes(op));
}

function withEntry(list: readonly Activity[], entry: LogEntry): readonly Activity[] {
  const { seq, by, type, op_id, undoes, redoes } = entry;
  const kind = undoes === null ? (redoes === null ? type : "redo") : "undo";
  const ops = kind === type && op_id !== "" ? [op_id] : [];
  // The server is trusted with its types; one that this page does not know has no text, and is left out.
  const next = { seq, by, kind: kind as ActivityKind, point: null, times: 1, ops, undone: [] };
  return appended(withUndone(list, undoes, redoes), next);
}

function appended(list: readonly Activity[], next: Activity): readonly Activity[] {
  const last = list.at(-1);
  const repeated =
    last !== undefined &&
    last.by === next.by &&
    last.kind === next.kind &&
    last.point === next.point &&
    last.undone.length === 0;
  if (!repeated) return [...list, next].slice(-MAX_ACTIVITIES);
  return [...list.slice(0, -1), { ...next, times: last.times + 1, ops: [...last.ops, ...next.ops] }];
}

/** Marks what an undo or a redo names. */
function withUndone(list: readonly Activity[], undoes: string | null, redoes: string | null): readonly Activity[] {
  const op = undoes ?? redoes;
  if (op === null) return list;
  return list.map((one) => {
    if (!one.ops.includes(op)) return one;
    const others = one.undone.filter((other) => other !== op);
    return { ...one, undone: undoes === null ? others : [...others, op] };
  });
}

function activityOf(room: Room, message: ServerMessage): Activity | null {
  const common = { point: null, times: 1, ops: [], undone: [] };
  switch (message.type) {
    case "edited": {
      const { op, seq, by, op_id } = message;
      const kind = kindOf(message);
      const ops = kind === "undo" || kind === "redo" ? [] : [op_id];
      return { ...common, seq, by, kind, ops, point: pointNumber(room, op) };
    }
    case "started":
      return { ...common, seq: message.seq, by: message.run.by, kind: "started", ops: [message.run.id] };
    case "stopping":
      return { ...common, seq: message.seq, by: message.by, kind: message.type };
    case "was_reset":
    case "seeked":
    case "base_replaced":
      return { ...common, seq: message.seq, by: message.by, kind: message.type, ops: [message.op_id] };
    case "ended":
      return message.run.outcome === null ? null : { ...common, seq: message.seq, by: "", kind: message.run.outcome };
    default:
      return null;
  }
}

function kindOf({ op, undoes, redoes }: Extract<ServerMessage, { readonly type: "edited" }>): ActivityKind {
  if (undoes) return "undo";
  if (redoes) return "redo";
  return op.type === "add_stroke" && op.stroke.mode === "erase" ? "erase" : op.type;
}

function pointNumber(room: Room, op: AppliedOperation): number | null {
  if (op.type !== "add_drag" && op.type !== "move_drag" && op.type !== "remove_drag") return null;
  const ids = Object.keys(room.document?.drags ?? {});
  const index = ids.indexOf(op.id);
  return index < 0 ? ids.length + 1 : index + 1;
}
