import { describe, expect, it } from "vitest";
import { branchesOf, pathThrough } from "./timeline.ts";

const moment = (id: number, parent: number | null, iteration: number) => ({
  id,
  parent,
  iteration,
  time: 0,
  thumbnail: true,
});
/** 1 - 2 - 3 - 4, and 5 - 6 from 2. */
const tree = [
  moment(1, null, 0),
  moment(2, 1, 5),
  moment(3, 2, 10),
  moment(4, 3, 15),
  moment(5, 2, 6),
  moment(6, 5, 11),
];
const ids = (current: number | null) => pathThrough(tree, current).map(({ id }) => id);

describe("the timeline", () => {
  it("goes through the current moment to the newest that follows", () => {
    expect(ids(3)).toEqual([1, 2, 3, 4]);
    expect(ids(5)).toEqual([1, 2, 5, 6]);
  });

  it("follows the newest branch where the current one is before the fork, or unknown", () => {
    expect(ids(1)).toEqual([1, 2, 5, 6]);
    expect(ids(null)).toEqual([1, 2, 5, 6]);
    expect(ids(99)).toEqual([1, 2, 5, 6]);
  });

  it("survives moments that were thinned away", () => {
    const thinned = tree.filter(({ id }) => id !== 2);
    expect(pathThrough(thinned, 4).map(({ id }) => id)).toEqual([3, 4]);
  });

  it("is empty before there is anything", () => {
    expect(pathThrough([], null)).toEqual([]);
    expect(branchesOf([])).toEqual([]);
  });
});

describe("the branches", () => {
  const shape = (moments: typeof tree) =>
    branchesOf(moments).map(({ from, moments: along }) => [
      from?.branch ?? null,
      from?.iteration ?? null,
      along.map(({ id }) => id),
    ]);

  it("are one until the room goes back", () => {
    expect(shape(tree.slice(0, 4))).toEqual([[null, null, [1, 2, 3, 4]]]);
  });

  it("begin where the room continued from before an end, of a branch too", () => {
    expect(shape(tree)).toEqual([
      [null, null, [1, 2, 3, 4]],
      [0, 5, [5, 6]],
    ]);
    expect(shape([...tree, moment(7, 5, 9), moment(8, 4, 20)])).toEqual([
      [null, null, [1, 2, 3, 4, 8]],
      [0, 5, [5, 6]],
      [1, 6, [7]],
    ]);
  });

  it("begin at the beginning where what they left is gone", () => {
    expect(shape(tree.filter(({ id }) => id !== 2))).toEqual([
      [null, null, [1]],
      [null, null, [3, 4]],
      [null, null, [5, 6]],
    ]);
  });
});
