/** The stored iterations of a room as a tree of branches and as paths to scrub along; pure. */

import type { BranchMark, Moment } from "./protocol.ts";

export interface Branch {
  /** The branch it left, as an index among all, and at which iteration; null if it begins at the start. */
  readonly from: { readonly branch: number; readonly iteration: number } | null;
  /** In order. */
  readonly moments: readonly [Moment, ...Moment[]];
  /** As people named it; empty if they did not. */
  readonly name: string;
  /** The moment that a mark names it by: the one that has a mark already, or the last. */
  readonly marked: number;
}

type Marks = Readonly<Record<string, BranchMark>>;

/** All branches but those removed from the list, in the order they were begun. The `current` moment's is never removed. */
export function branchesOf(
  moments: readonly Moment[],
  marks: Marks = {},
  current: number | null = null,
): readonly Branch[] {
  return treeOf(moments).flatMap((branch) => {
    const marked = branch.moments.findLast(({ id }) => marks[id] !== undefined)?.id ?? branch.moments.at(-1)?.id ?? 0;
    const removed = marks[marked]?.removed === true && !branch.moments.some(({ id }) => id === current);
    return removed ? [] : [{ ...branch, name: marks[marked]?.name ?? "", marked }];
  });
}

function treeOf(moments: readonly Moment[]): readonly Omit<Branch, "name" | "marked">[] {
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
