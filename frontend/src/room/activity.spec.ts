import { expect, it } from "vitest";
import { isUndone, withActivity } from "./activity.ts";
import type { Activity } from "./activity.ts";
import type { Document, ServerMessage } from "./protocol.ts";
import { EMPTY_ROOM, receive } from "./room.ts";

const document: Document = {
  picture: { sha256: "0".repeat(64), width: 200, height: 100 },
  drags: { a: { handle: [1, 1], target: [9, 9], tracked: null }, b: { handle: [2, 2], target: [8, 8], tracked: null } },
  mask: [],
  prompt: "",
  settings: {},
  run: null,
  result: null,
  moment: null,
  pins: {},
  title: "",
};

/** Everything withActivity of some messages, from a room with two points. */
function follow(...messages: readonly ServerMessage[]): readonly Activity[] {
  let room = receive(EMPTY_ROOM, { type: "snapshot", seq: 1, document });
  let list: readonly Activity[] = [];
  for (const message of messages) {
    list = withActivity(list, room, message);
    room = receive(room, message);
  }
  return list;
}

const edited = (
  seq: number,
  by: string,
  op: Extract<ServerMessage, { type: "edited" }>["op"],
  more = {},
): ServerMessage => ({
  type: "edited",
  seq,
  op_id: `o${seq}`,
  by,
  op,
  ...more,
});

it("says who did what to which point", () => {
  const list = follow(
    edited(2, "anna", { type: "move_drag", id: "b", target: [5, 5] }),
    edited(3, "bo", { type: "add_drag", id: "c", handle: [1, 2], target: [3, 4] }),
    edited(4, "bo", { type: "restore", drags: { c: null } }, { undoes: "o3" }),
  );
  expect(list.map(({ by, kind, point }) => [by, kind, point])).toEqual([
    ["anna", "move_drag", 2],
    ["bo", "add_drag", 3],
    ["bo", "undo", null],
  ]);
});

it("counts what is done over and over instead of filling the list", () => {
  const moves = [2, 3, 4].map((seq) => edited(seq, "anna", { type: "move_drag", id: "a", target: [seq, 5] }));
  expect(follow(...moves)).toMatchObject([{ kind: "move_drag", point: 1, times: 3, seq: 4 }]);
});

it("tells painting from erasing, and a run from who began it", () => {
  const stroke = { type: "stroke", id: "s", mode: "erase", radius: 3, points: [[1, 1]] } as const;
  const run = { id: "r", by: "anna", iterations: 0, outcome: null, interrupted: false, message: null };
  const list = follow(
    edited(2, "anna", { type: "add_stroke", stroke }),
    { type: "started", seq: 3, op_id: "o", run },
    { type: "ended", seq: 4, run: { ...run, outcome: "arrived" }, tracked: {}, result: null },
  );
  expect(list.map(({ by, kind }) => [by, kind])).toEqual([
    ["anna", "erase"],
    ["anna", "started"],
    ["", "arrived"],
  ]);
});

it("notes nothing twice after a reconnect", () => {
  const move = edited(2, "anna", { type: "move_drag", id: "a", target: [5, 5] });
  expect(follow(move, move)).toHaveLength(1);
  expect(follow(move, move)[0]?.times).toBe(1);
});

it("marks what has been undone, runs included, until it is redone", () => {
  const run = { id: "r", by: "anna", iterations: 0, outcome: null, interrupted: false, message: null };
  const ran: readonly ServerMessage[] = [
    { type: "started", seq: 2, op_id: "o", run },
    { type: "ended", seq: 3, run: { ...run, outcome: "arrived" }, tracked: {}, result: null },
  ];
  const undone = [...ran, edited(4, "anna", { type: "restore" }, { undoes: "r" })];
  expect(follow(...ran).some(isUndone)).toBe(false);
  expect(follow(...undone).map((one) => [one.kind, isUndone(one)])).toEqual([
    ["started", true],
    ["arrived", false],
    ["undo", false],
  ]);
  expect(follow(...undone, edited(5, "anna", { type: "restore" }, { redoes: "r" })).some(isUndone)).toBe(false);
});

it("begins with what was done before the page was opened", () => {
  const entry = { op_id: "", undoes: null, redoes: null };
  const list = follow({
    type: "log",
    entries: [
      { ...entry, seq: 1, by: "anna", type: "set_prompt", op_id: "o1" },
      { ...entry, seq: 2, by: "bo", type: "was_reset", op_id: "o2" },
      { ...entry, seq: 3, by: "anna", type: "restore", op_id: "o3", undoes: "o1" },
    ],
  });
  expect(list.map((one) => [one.by, one.kind, isUndone(one)])).toEqual([
    ["anna", "set_prompt", true],
    ["bo", "was_reset", false],
    ["anna", "undo", false],
  ]);
});
