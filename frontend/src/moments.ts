/** The kept iterations of a room as lines to scrub along, pure. */

import type { Moment } from "./protocol.ts";

export interface Line {
  /** From the first moment through the current one to the newest that follows from it. */
  readonly moments: readonly Moment[];
  /** By moment on the line: the newest moment of each other branch that leaves there. */
  readonly forks: Readonly<Record<number, readonly number[]>>;
}

/** The line through `current`, or through the newest moment where there is no current one. */
export function lineThrough(moments: readonly Moment[], current: number | null): Line {
  const byId = new Map(moments.map((moment) => [moment.id, moment]));
  const children = new Map<number | null, Moment[]>();
  // Thinned away, a parent is no longer there: what followed from it then begins at the root.
  for (const moment of moments) {
    const parent = moment.parent !== null && byId.has(moment.parent) ? moment.parent : null;
    children.set(parent, [...(children.get(parent) ?? []), moment]);
  }
  const newest = (from: Moment): Moment => {
    const next = children.get(from.id)?.at(-1);
    return next === undefined ? from : newest(next);
  };
  const through = (current === null ? undefined : byId.get(current)) ?? moments.at(-1);
  if (through === undefined) return { moments: [], forks: {} };
  const line: Moment[] = [];
  for (let at: Moment | undefined = newest(through); at !== undefined; at = at.parent === null ? undefined : byId.get(at.parent)) line.unshift(at);
  const forks: Record<number, readonly number[]> = {};
  line.forEach((moment, index) => {
    const others = (children.get(moment.id) ?? []).filter(({ id }) => id !== line[index + 1]?.id);
    if (others.length > 0) forks[moment.id] = others.map((other) => newest(other).id);
  });
  return { moments: line, forks };
}
