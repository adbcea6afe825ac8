import { expect, it } from "vitest";
import { initialsOf } from "./initials.ts";

it.each([
  [
    ["Ada", "Bo"],
    ["A", "B"],
  ],
  [
    ["Guest 1", "Guest 2", "Guest 12"],
    ["G1", "G2", "G12"],
  ],
  [
    ["Ada", "Ann"],
    ["AD", "AN"],
  ],
  [
    ["Ada Lovelace", "Ada Byron", "Bo"],
    ["AL", "AB", "B"],
  ],
  [
    ["Anna", "Anne"],
    ["AA", "AE"],
  ],
  [
    ["Bo", "Bo"],
    ["BO", "BO"],
  ],
  [
    ["", "Éva"],
    ["", "É"],
  ],
])("tells %j apart", (names, initials) => {
  expect(initialsOf(names)).toEqual(initials);
});
