/** The kept iterations of a room as a tree of branches, and as lines to scrub along; pure. */

import type { Moment } from "./protocol.ts";

/** A branch of the tree that the moments are: what followed from one another, until somebody went back. */
export interface Branch {
  /** The branch that it left, as an index, and the iteration where it did; null for one from the beginning. */
  readonly from: { readonly branch: number; readonly iteration: number } | null;
  /** At least one, in their order. */
  readonly moments: readonly [Moment, ...Moment[]];
}

/** All branches in the order in which they were begun; the first is the first way that was gone. */
export function branchesOf(moments: readonly Moment[]): readonly Branch[] {
  const branches: { from: Branch["from"]; moments: [Moment, ...Moment[]] }[] = [];
  /** By moment, the branch that it lies on. */
  const places = new Map<number, number>();
  for (const moment of moments) {
    const place = moment.parent === null ? undefined : places.get(moment.parent);
    const before = place === undefined ? undefined : branches[place];
    if (place !== undefined && before?.moments.at(-1)?.id === moment.parent) {
      before?.moments.push(moment);
      places.set(moment.id, place);
    } else {
      const left = before?.moments.find(({ id }) => id === moment.parent);
      places.set(moment.id, branches.length);
      branches.push({
        from: place === undefined || left === undefined ? null : { branch: place, iteration: left.iteration },
        moments: [moment],
      });
    }
  }
  return branches;
}

/** From the first moment through `current`, or through the newest where there is none, to the newest that follows from it. */
export function lineThrough(moments: readonly Moment[], current: number | null): readonly Moment[] {
  const byId = new Map(moments.map((moment) => [moment.id, moment]));
  // Those that follow have come later: the last one that is found is the newest.
  const next = new Map(moments.flatMap((moment) => (moment.parent === null ? [] : [[moment.parent, moment] as const])));
  let last = (current === null ? undefined : byId.get(current)) ?? moments.at(-1);
  for (let on = last; on !== undefined; on = next.get(on.id)) last = on;
  const line: Moment[] = [];
  for (let at = last; at !== undefined; at = at.parent === null ? undefined : byId.get(at.parent)) line.unshift(at);
  return line;
}
