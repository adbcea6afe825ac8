/** Who moved the ends of drags last, to say when one person's move replaces another's; pure. */

import type { DragEnd } from "./geometry.ts";
import type { AppliedOperation } from "./protocol.ts";

/** People by drag and end, as "d1 target". */
export type Movers = Readonly<Record<string, string>>;

/** The movers after an operation by a person. */
export function withMovers(movers: Movers, by: string, op: AppliedOperation): Movers {
  const moved = endsOf(op);
  return moved.length === 0
    ? movers
    : { ...movers, ...Object.fromEntries(moved.map(([id, end]) => [`${id} ${end}`, by])) };
}

/** The drag of which an operation by another person moves an end that `me` moved last; null if there is none. */
export function overwrittenDrag(movers: Movers, me: string, by: string, op: AppliedOperation): string | null {
  if (by === me || op.type !== "move_drag") return null;
  return endsOf(op).find(([id, end]) => movers[`${id} ${end}`] === me)?.[0] ?? null;
}

function endsOf(op: AppliedOperation): readonly (readonly [string, DragEnd])[] {
  if (op.type === "add_drag") {
    return [
      [op.id, "handle"],
      [op.id, "target"],
    ];
  }
  if (op.type !== "move_drag") return [];
  const ends: readonly DragEnd[] = ["handle", "target"];
  return ends.filter((end) => op[end]).map((end) => [op.id, end] as const);
}
