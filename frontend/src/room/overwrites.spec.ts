import { expect, it } from "vitest";
import { overwrittenDrag, withMovers } from "./overwrites.ts";

const add = { type: "add_drag", id: "d1", handle: [1, 1], target: [5, 5] } as const;
const aim = { type: "move_drag", id: "d1", target: [7, 7] } as const;

it("is another's move of an end that was last one's own", () => {
  const mine = withMovers({}, "me", add);
  expect(overwrittenDrag(mine, "me", "bo", aim)).toBe("d1");
  expect(overwrittenDrag(mine, "me", "me", aim)).toBeNull();
  const theirs = withMovers(mine, "bo", aim);
  expect(overwrittenDrag(theirs, "me", "bo", aim)).toBeNull();
  expect(overwrittenDrag(theirs, "me", "bo", { type: "move_drag", id: "d1", handle: [2, 2] })).toBe("d1");
  expect(overwrittenDrag(theirs, "me", "bo", { type: "remove_drag", id: "d1" })).toBeNull();
});
