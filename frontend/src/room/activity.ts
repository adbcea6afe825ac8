/** The list of who did what in a room, built from the server's messages; pure. */

import type { AppliedOperation, ServerMessage } from "./protocol.ts";
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
}

const MAX_ACTIVITIES = 60;

/** The list, newest last, after a message that `room` has not received yet. */
export function withActivity(list: readonly Activity[], room: Room, message: ServerMessage): readonly Activity[] {
  if (message.type === "snapshot") return room.document === null ? list : [];
  const next = activityOf(room, message);
  const last = list.at(-1);
  if (next === null || (last?.seq ?? 0) >= next.seq) return list;
  const repeated = last !== undefined && last.by === next.by && last.kind === next.kind && last.point === next.point;
  return repeated ? [...list.slice(0, -1), { ...next, times: last.times + 1 }] : [...list, next].slice(-MAX_ACTIVITIES);
}

function activityOf(room: Room, message: ServerMessage): Activity | null {
  const common = { point: null, times: 1 };
  switch (message.type) {
    case "edited": {
      const { op, seq, by } = message;
      return { ...common, seq, by, kind: kindOf(message), point: pointNumber(room, op) };
    }
    case "started":
      return { ...common, seq: message.seq, by: message.run.by, kind: "started" };
    case "stopping":
    case "was_reset":
    case "seeked":
    case "base_replaced":
      return { ...common, seq: message.seq, by: message.by, kind: message.type };
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
