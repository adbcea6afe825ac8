import { describe, expect, it } from "vitest";
import { lineThrough } from "./moments.ts";

const moment = (id: number, parent: number | null, iteration: number) => ({ id, parent, iteration, time: 0, thumbnail: true });
/** 1 - 2 - 3 - 4, and 5 - 6 from 2. */
const tree = [moment(1, null, 0), moment(2, 1, 5), moment(3, 2, 10), moment(4, 3, 15), moment(5, 2, 6), moment(6, 5, 11)];
const ids = (current: number | null) => lineThrough(tree, current).moments.map(({ id }) => id);

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

  it("says where other branches leave, and where they end", () => {
    expect(lineThrough(tree, 3).forks).toEqual({ 2: [6] });
    expect(lineThrough(tree, 6).forks).toEqual({ 2: [4] });
  });

  it("survives moments that were thinned away", () => {
    const thinned = tree.filter(({ id }) => id !== 2);
    expect(lineThrough(thinned, 4).moments.map(({ id }) => id)).toEqual([3, 4]);
  });

  it("is empty before there is anything", () => {
    expect(lineThrough([], null)).toEqual({ moments: [], forks: {} });
  });
});
