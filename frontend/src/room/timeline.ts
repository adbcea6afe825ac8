/** The stored iterations of a room as a tree of branches and as paths to scrub along; pure. */

import type { Moment } from "./protocol.ts";

export interface Branch {
  /** The branch it left, as an index, and at which iteration; null if it begins at the start. */
  readonly from: { readonly branch: number; readonly iteration: number } | null;
  /** In order. */
  readonly moments: readonly [Moment, ...Moment[]];
}

/** All branches, in the order they were begun. */
export function branchesOf(moments: readonly Moment[]): readonly Branch[] {
  const branches: { from: Branch["from"]; moments: [Moment, ...Moment[]] }[] = [];
  /** Indexes of branches by moment. */
  const branchOf = new Map<number, number>();
  for (const moment of moments) {
    const index = moment.parent === null ? undefined : branchOf.get(moment.parent);
    const branch = index === undefined ? undefined : branches[index];
    if (index !== undefined && branch?.moments.at(-1)?.id === moment.parent) {
      branch?.moments.push(moment);
      branchOf.set(moment.id, index);
      continue;
    }
    const parent = branch?.moments.find(({ id }) => id === moment.parent);
    const from = index === undefined || parent === undefined ? null : { branch: index, iteration: parent.iteration };
    branchOf.set(moment.id, branches.length);
    branches.push({ from, moments: [moment] });
  }
  return branches;
}

/** From the first moment through `current` (or the newest) to the newest of its descendants. */
export function pathThrough(moments: readonly Moment[], current: number | null): readonly Moment[] {
  const byId = new Map(moments.map((moment) => [moment.id, moment]));
  // Later children replace earlier ones, so each moment leads to its newest child.
  const newestChild = new Map(
    moments.flatMap((moment) => (moment.parent === null ? [] : [[moment.parent, moment] as const])),
  );
  let last = (current === null ? undefined : byId.get(current)) ?? moments.at(-1);
  for (let next = last; next !== undefined; next = newestChild.get(next.id)) last = next;
  const path: Moment[] = [];
  for (let at = last; at !== undefined; at = at.parent === null ? undefined : byId.get(at.parent)) path.unshift(at);
  return path;
}
