import { describe, expect, it } from "vitest";
import type { Document, Edit, Operation, ServerMessage } from "./protocol.ts";
import { applyOperation, currentPlace, endedRun, isRunning } from "./document.ts";
import { EMPTY_ROOM, isStarting, isStopping, receive, rejectedRequest, withRequest, visibleDocument } from "./room.ts";
import type { Room } from "./room.ts";

const blank: Document = {
  picture: { sha256: "0".repeat(64), width: 256, height: 256 },
  drags: {},
  mask: [],
  prompt: "",
  settings: {},
  run: null,
  result: null,
  moment: null,
  pins: {},
  title: "",
};

const add = (id: string): Operation => ({ type: "add_drag", id, handle: [10, 10], target: [40, 10] });
const edited = (seq: number, op_id: string, op: Operation): ServerMessage => ({
  type: "edited",
  seq,
  op_id,
  by: "u1",
  op,
});
const ours = (op_id: string, op: Operation, base = 0): Edit => ({ type: "edit", op_id, base, op });
const run = (id: string, outcome: "stopped" | "arrived" | null = null, iterations = 0) => ({
  id,
  by: "u1",
  iterations,
  outcome,
  interrupted: false,
  message: null,
});
const after = (room: Room, ...messages: readonly ServerMessage[]): Room => messages.reduce(receive, room);
const opened = after(EMPTY_ROOM, { type: "snapshot", seq: 3, document: blank });
const withDrag = after(opened, edited(4, "x", add("d1")));
const dragging = after(withDrag, { type: "started", seq: 5, op_id: "r", run: run("run1") });

describe("our own edits", () => {
  it("show at once and stay the server's to decide", () => {
    const room = withRequest(opened, ours("o1", add("d1")));
    expect(visibleDocument(room)?.drags).toHaveProperty("d1");
    expect(room.document?.drags).toEqual({});
  });

  it("settle on the server's answer", () => {
    const room = after(withRequest(opened, ours("o1", add("d1"))), edited(4, "o1", add("d1")));
    expect(room.pending).toEqual([]);
    expect(room.seq).toBe(4);
    expect(visibleDocument(room)?.drags.d1).toEqual({ handle: [10, 10], target: [40, 10], tracked: null });
  });

  it("go away again when rejected", () => {
    const pending = withRequest(opened, ours("o1", add("d1")));
    const no = { type: "rejected", op_id: "o1", reason: "too_many", message: "64 drags" } as const;
    expect(rejectedRequest(pending, no)).toMatchObject({ op: { type: "add_drag" } });
    expect(visibleDocument(after(pending, no))).toEqual(blank);
  });

  it("lie over what others do meanwhile, in the order made", () => {
    let room = withRequest(withDrag, ours("o1", { type: "move_drag", id: "d1", target: [50, 50] }));
    room = withRequest(room, ours("o2", { type: "move_drag", id: "d1", target: [60, 60] }));
    room = after(room, edited(5, "theirs", { type: "move_drag", id: "d1", target: [1, 1] }));
    expect(visibleDocument(room)?.drags.d1?.target).toEqual([60, 60]);
    room = after(room, edited(6, "o1", { type: "move_drag", id: "d1", target: [50, 50] }));
    expect(visibleDocument(room)?.drags.d1?.target).toEqual([60, 60]);
  });

  it("on what others removed do no harm", () => {
    const room = withRequest(withDrag, ours("o1", { type: "move_drag", id: "d1", target: [50, 50] }));
    expect(visibleDocument(after(room, edited(5, "theirs", { type: "remove_drag", id: "d1" })))?.drags).toEqual({});
  });
});

describe("coming back after a lost connection", () => {
  it("keeps what was not answered, over the newer document", () => {
    const room = after(withRequest(opened, ours("o1", add("d1"), 3)), {
      type: "snapshot",
      seq: 9,
      document: { ...blank, prompt: "a cat" },
    });
    expect(room.pending.map((one) => one.op_id)).toEqual(["o1"]);
    expect(visibleDocument(room)).toMatchObject({ prompt: "a cat", drags: { d1: { target: [40, 10] } } });
  });

  it("takes the late answer to an edit that the snapshot has already", () => {
    const snapshot: ServerMessage = { type: "snapshot", seq: 9, document: applyOperation(blank, add("d1")) };
    const before = after(withRequest(opened, ours("o1", add("d1"), 3)), snapshot);
    expect(Object.keys(visibleDocument(before)?.drags ?? {})).toEqual(["d1"]);
    const room = after(before, edited(4, "o1", add("d1")));
    expect(room).toMatchObject({ pending: [], seq: 9 });
    expect(room.document).toBe(before.document);
  });

  it("does not applyOperation an edit twice", () => {
    const stroke: Operation = {
      type: "add_stroke",
      stroke: { type: "stroke", id: "s1", mode: "paint", radius: 8, points: [[5, 5]] },
    };
    const twice = after(opened, edited(4, "o1", stroke), edited(4, "o1", stroke));
    expect(twice.document?.mask).toHaveLength(1);
    const again = withRequest(twice, ours("o1", stroke));
    expect(visibleDocument(again)?.mask).toHaveLength(1);
  });

  it("resumes the run it left", () => {
    const left = after(dragging, points("run1", 7, [15, 10]));
    const document = {
      ...blank,
      drags: { d1: { handle: [10, 10], target: [40, 10], tracked: [15, 10] } },
      run: run("run1"),
    } as const;
    const room = after(left, { type: "snapshot", seq: 5, document });
    expect(room.iteration).toBe(7);
    expect(room.trails.d1).toHaveLength(2);
    const elsewhere = after(left, {
      type: "snapshot",
      seq: 8,
      document: { ...document, run: run("run1", "stopped", 12) },
    });
    expect(elsewhere).toMatchObject({ iteration: 12, progress: null, trails: {} });
  });
});

function points(id: string, iteration: number, at: readonly [number, number]): ServerMessage {
  return { type: "points", run: id, iteration, handles: { d1: at }, distances: { d1: 40 - at[0] }, loss: 1 };
}

describe("a run", () => {
  it("is starting from the press until the server says so", () => {
    const pressed = withRequest(withDrag, { type: "run", op_id: "r" });
    expect(isStarting(pressed)).toBe(true);
    const room = after(pressed, { type: "started", seq: 5, op_id: "r", run: run("run1") });
    expect(isStarting(room)).toBe(false);
    expect(isRunning(room.document)).toBe(true);
  });

  it("moves the tracked points and draws their trails", () => {
    const room = after(dragging, points("run1", 1, [12, 10]), points("run1", 2, [15, 11]));
    const drag = visibleDocument(room)?.drags.d1;
    expect(drag?.handle).toEqual([10, 10]);
    expect(drag && currentPlace(drag)).toEqual([15, 11]);
    expect(room.trails.d1).toEqual([
      [10, 10],
      [12, 10],
      [15, 11],
    ]);
    expect(room.iteration).toBe(2);
  });

  it("keeps the tracked place when it is re-aimed, and forgets it when it is grabbed again", () => {
    const moved = after(dragging, points("run1", 1, [12, 10]));
    const aimed = after(moved, edited(6, "o", { type: "move_drag", id: "d1", target: [90, 90] }));
    expect(aimed.document?.drags.d1).toEqual({ handle: [10, 10], target: [90, 90], tracked: [12, 10] });
    const grabbed = after(aimed, edited(7, "p", { type: "move_drag", id: "d1", handle: [30, 30] }));
    expect(grabbed.document?.drags.d1?.tracked).toBeNull();
    expect(grabbed.trails).toEqual({});
  });

  it("ignores news of another run", () => {
    const room = after(dragging, points("older", 9, [99, 99]), {
      type: "progress",
      run: "older",
      stage: "dragging",
      step: 1,
      steps: 2,
      seconds: 1,
      seconds_left: null,
      loss: null,
    });
    expect(room).toEqual(dragging);
  });

  it("shows a stop from the press on, and no longer once it has ended", () => {
    const pressed = withRequest(dragging, { type: "stop", op_id: "s" });
    expect(isStopping(pressed)).toBe(true);
    const heard = after(pressed, { type: "stopping", seq: 6, op_id: "s", by: "u1" });
    expect(isStopping(heard)).toBe(true);
    const ended = after(heard, {
      type: "ended",
      seq: 7,
      run: run("run1", "stopped", 12),
      tracked: { d1: [20, 10] },
      result: { sha256: "a".repeat(64), run: "run1" },
    });
    expect(isStopping(ended)).toBe(false);
    expect(isRunning(ended.document)).toBe(false);
    expect(endedRun(ended.document)?.outcome).toBe("stopped");
    expect(ended).toMatchObject({ iteration: 12, progress: null, document: { drags: { d1: { tracked: [20, 10] } } } });
    expect(isStopping(after(ended, { type: "started", seq: 8, op_id: "r2", run: run("run2") }))).toBe(false);
  });

  it("is forgotten by a reset, with what it moved", () => {
    const room = after(dragging, points("run1", 1, [12, 10]), { type: "was_reset", seq: 9, op_id: "z", by: "u1" });
    expect(room.document).toMatchObject({ run: null, result: null, drags: { d1: { tracked: null } } });
    expect(room).toMatchObject({ trails: {}, iteration: 0 });
  });

  it("that the machine stopped under is no longer running, and can be gone on with", () => {
    const document = { ...blank, run: { ...run("run1"), interrupted: true } };
    expect(isRunning(document)).toBe(false);
    expect(endedRun(document)?.interrupted).toBe(true);
  });
});

describe("operations", () => {
  it("replace what was painted when a mask is loaded, and clear it", () => {
    const stroke = { type: "stroke", id: "s1", mode: "paint", radius: 8, points: [[5, 5]] } as const;
    const raster = { type: "raster", id: "m1", sha256: "b".repeat(64) } as const;
    const painted = applyOperation(blank, { type: "add_stroke", stroke });
    expect(applyOperation(painted, raster).mask).toEqual([raster]);
    expect(applyOperation(painted, { type: "clear_mask" }).mask).toEqual([]);
  });

  it("set settings, and take them back with null", () => {
    const set = applyOperation(blank, { type: "set_settings", settings: { seed: 4, latent_lr: 0.02 } });
    expect(applyOperation(set, { type: "set_settings", settings: { seed: null } }).settings).toEqual({
      latent_lr: 0.02,
    });
  });

  it("never change the document they are given", () => {
    const frozen = Object.freeze({
      ...blank,
      drags: Object.freeze({}),
      settings: Object.freeze({}),
      mask: Object.freeze([]),
    });
    expect(() => applyOperation(frozen, add("d1"))).not.toThrow();
    expect(frozen.drags).toEqual({});
  });
});

describe("going along the timeline", () => {
  const moments = [
    { id: 1, parent: null, iteration: 0, time: 0, thumbnail: true },
    { id: 2, parent: 1, iteration: 4, time: 1, thumbnail: true },
  ];
  const moved = { ...blank, drags: { d: { handle: [1, 1], target: [9, 9], tracked: [5, 5] } } } as Document;
  const points = (iteration: number, left: number) =>
    ({ type: "points", run: "r1", iteration, handles: { d: [2, 2] }, distances: { d: left }, loss: 0 }) as const;

  it("takes the points and the chart along", () => {
    let room = receive(EMPTY_ROOM, { type: "snapshot", seq: 1, document: { ...moved, run: run("r1") } });
    room = receive(room, { type: "moments", run: "r1", moments, current: 2 });
    for (const message of [points(2, 8), points(4, 6), points(6, 4)]) room = receive(room, message);
    expect(room.chart).toHaveLength(3);
    room = receive(room, { type: "seeked", seq: 2, op_id: "o", by: "p", moment: 2, tracked: { d: [3, 3] } });
    expect(room.document?.moment).toBe(2);
    expect(room.document?.drags.d?.tracked).toEqual([3, 3]);
    expect(room.chart.map(({ iteration }) => iteration)).toEqual([2, 4]);
    expect(room.iteration).toBe(4);
  });

  it("draws the chart of the current branch", () => {
    let room = receive(EMPTY_ROOM, { type: "snapshot", seq: 1, document: { ...moved, run: run("r1") } });
    for (const message of [points(2, 8), points(4, 6), points(6, 4), points(3, 7)]) room = receive(room, message);
    expect(room.chart.map(({ iteration }) => iteration)).toEqual([2, 3]);
  });

  it("keeps a long chart short and whole", () => {
    let room = receive(EMPTY_ROOM, { type: "snapshot", seq: 1, document: { ...moved, run: run("r1") } });
    for (let iteration = 1; iteration <= 3000; iteration++) room = receive(room, points(iteration, 1));
    expect(room.chart.length).toBeLessThanOrEqual(401);
    expect(room.chart[0]?.iteration).toBe(1);
    expect(room.chart.at(-1)?.iteration).toBe(3000);
  });
});

describe("undo", () => {
  const before: Document = {
    ...blank,
    drags: {
      a: { handle: [1, 1], target: [9, 9], tracked: [5, 5] },
      b: { handle: [2, 2], target: [8, 8], tracked: null },
    },
    settings: { latent_lr: 0.02, seed: 3 },
    prompt: "now",
  };

  it("puts back what it names, and leaves the rest", () => {
    const after = applyOperation(before, {
      type: "restore",
      drags: { a: { target: [7, 7] }, b: null, c: { handle: [3, 3], target: [4, 4] } },
      settings: { latent_lr: null },
    });
    expect(after.drags).toEqual({
      a: { handle: [1, 1], target: [7, 7], tracked: [5, 5] },
      c: { handle: [3, 3], target: [4, 4], tracked: null },
    });
    expect(after.settings).toEqual({ seed: 3 });
    expect(after.prompt).toBe("now");
    expect(after.mask).toBe(before.mask);
  });

  it("takes a re-grab back, and the mask as a whole", () => {
    const layer = { type: "invert", id: "i" } as const;
    const after = applyOperation(before, {
      type: "restore",
      drags: { a: { handle: [2, 1] } },
      mask: [layer],
      prompt: "",
    });
    expect(after.drags.a).toEqual({ handle: [2, 1], target: [9, 9], tracked: null });
    expect(after.mask).toEqual([layer]);
    expect(after.prompt).toBe("");
  });

  it("knows what could be undone", () => {
    const room = receive(EMPTY_ROOM, { type: "history", undo: "add_drag", redo: null });
    expect(room.history).toEqual({ undo: "add_drag", redo: null });
  });
});

describe("masks", () => {
  it("lose a stroke and are turned around, once each", () => {
    const stroke = { type: "stroke", id: "s", mode: "paint", radius: 3, points: [[1, 1]] } as const;
    const painted = applyOperation(blank, { type: "add_stroke", stroke });
    const turned = applyOperation(applyOperation(painted, { type: "invert_mask", id: "i" }), {
      type: "invert_mask",
      id: "i",
    });
    expect(turned.mask).toEqual([stroke, { type: "invert", id: "i" }]);
    expect(applyOperation(turned, { type: "remove_stroke", id: "s" }).mask).toEqual([{ type: "invert", id: "i" }]);
  });
});

describe("company", () => {
  const pointing = { cursor: [1, 2], selected: null, tool: "points", busy: false } as const;

  it("keeps the latest of everybody, and forgets who has gone", () => {
    let room = receive(EMPTY_ROOM, { type: "presences", people: { a: pointing, b: pointing } });
    room = receive(room, { type: "presences", people: { a: { ...pointing, busy: true } } });
    expect(room.presences).toEqual({ a: { ...pointing, busy: true }, b: pointing });
    room = receive(room, { type: "presences", people: { b: null } });
    expect(Object.keys(room.presences)).toEqual(["a"]);
  });

  it("says what one may do oneself", () => {
    const room = { ...EMPTY_ROOM, person: "me" };
    const me = { name: "", colour: "#000000", role: "viewer", here: true } as const;
    expect(receive(room, { type: "people", people: { me } }).role).toBe("viewer");
  });
});
