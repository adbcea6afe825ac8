/** Who did what in a room, from the records that everybody gets; pure. */

import type { AppliedOperation, ServerMessage } from "./protocol.ts";
import type { Room } from "./room.ts";

export type Deed =
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
  | "was_reset"
  | "sought";

export interface Activity {
  readonly seq: number;
  /** The person; "" where nobody did it. */
  readonly by: string;
  readonly deed: Deed;
  /** The number of the point it was done to, where it was one. */
  readonly point: number | null;
  /** How often in a row. */
  readonly times: number;
}

/** Longest list kept. */
const MOST = 60;

/** The list after a message, which the room, as it was before, is about to receive. The newest is last. */
export function noted(list: readonly Activity[], room: Room, message: ServerMessage): readonly Activity[] {
  if (message.type === "snapshot") return room.document === null ? list : [];
  const next = deedOf(room, message);
  if (next === null || (list.at(-1)?.seq ?? 0) >= next.seq) return list;
  const last = list.at(-1);
  const again = last !== undefined && last.by === next.by && last.deed === next.deed && last.point === next.point;
  return again ? [...list.slice(0, -1), { ...next, times: last.times + 1 }] : [...list, next].slice(-MOST);
}

function deedOf(room: Room, message: ServerMessage): Activity | null {
  switch (message.type) {
    case "edited": {
      const { op, seq, by } = message;
      const deed = message.undoes
        ? "undo"
        : message.redoes
          ? "redo"
          : op.type === "add_stroke" && op.stroke.mode === "erase"
            ? "erase"
            : op.type;
      const ids = Object.keys(room.document?.drags ?? {});
      const id = op.type === "add_drag" || op.type === "move_drag" || op.type === "remove_drag" ? op.id : null;
      const at = id === null ? -1 : ids.indexOf(id);
      return { seq, by, deed, point: id === null ? null : at < 0 ? ids.length + 1 : at + 1, times: 1 };
    }
    case "started":
      return { seq: message.seq, by: message.run.by, deed: "started", point: null, times: 1 };
    case "stopping":
    case "was_reset":
    case "sought":
      return { seq: message.seq, by: message.by, deed: message.type, point: null, times: 1 };
    case "ended":
      return message.run.outcome === null
        ? null
        : { seq: message.seq, by: "", deed: message.run.outcome, point: null, times: 1 };
    default:
      return null;
  }
}
