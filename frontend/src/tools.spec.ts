import { beforeEach, describe, expect, it, vi } from "vitest";
import { toCanvas } from "./geometry.ts";
import type { Document, Operation, XY } from "./protocol.ts";
import { receive } from "./room.ts";
import * as store from "./store.ts";
import * as tools from "./tools.ts";

const blank: Document = {
  picture: { sha256: "0".repeat(64), width: 200, height: 100 },
  drags: {},
  mask: [],
  prompt: "",
  settings: {},
  run: null,
  result: null,
  moment: null,
};
const view = { scale: 2, x: 10, y: 20 };
const at = (x: number, y: number): XY => toCanvas(view, [x, y]);

/** What would have gone to the server; nobody is connected here, so it all waits. */
const asked = (): readonly Operation[] =>
  store.room.value.pending.flatMap((ours) => (ours.type === "edit" ? [ours.op] : []));

function open(document: Document): void {
  store.room.value = receive(store.room.value, { type: "snapshot", seq: 1, document });
  store.brush.value = 10;
}

function click(x: number, y: number): void {
  tools.press(view, at(x, y), "mouse");
  tools.release();
}

function pull(from: XY, to: XY): void {
  tools.press(view, at(...from), "mouse");
  tools.move(view, at(...to));
  tools.release();
}

const oneDrag: Document = { ...blank, drags: { d1: { handle: [50, 50], target: [90, 50], tracked: null } } };
const going: Document = {
  ...oneDrag,
  run: { id: "r1", by: "u", iterations: 0, outcome: null, interrupted: false, message: null },
};

beforeEach(() => {
  vi.useRealTimers();
  tools.cancel();
  store.clear();
  open(blank);
});

describe("putting points", () => {
  it("takes a click for the handle and the next for its target", () => {
    click(30, 40);
    expect(asked()).toEqual([]);
    expect(store.half.value).toEqual([30, 40]);
    click(60, 45);
    expect(asked()).toMatchObject([{ type: "add_drag", handle: [30, 40], target: [60, 45] }]);
    expect(store.half.value).toBeNull();
    expect(store.selected.value?.end).toBe("target");
  });

  it("takes a press that is pulled for both", () => {
    pull([30, 40], [80, 90]);
    expect(asked()).toMatchObject([{ type: "add_drag", handle: [30, 40], target: [80, 90] }]);
  });

  it("pulls the target out of a handle that waits for it", () => {
    click(30, 40);
    pull([30, 40], [70, 40]);
    expect(asked()).toMatchObject([{ handle: [30, 40], target: [70, 40] }]);
  });

  it("keeps targets on the picture and takes no handle beside it", () => {
    pull([30, 40], [500, -80]);
    expect(asked()).toMatchObject([{ target: [199, 0] }]);
    click(-20, 50);
    expect(store.half.value).toBeNull();
  });

  it("forgets the half-made point on cancel", () => {
    click(30, 40);
    expect(tools.cancel()).toBe(true);
    expect(store.half.value).toBeNull();
    expect(tools.cancel()).toBe(false);
  });

  it("keeps the handle where the target would lie on it", () => {
    click(30, 40);
    store.tool.value = "points";
    tools.pointByKey();
    expect(tools.place()).toBe(true);
    expect(asked()).toEqual([]);
    expect(store.half.value).toEqual([30, 40]);
    expect(store.toasts.value.at(-1)?.kind).toBe("error");
  });
});

describe("moving points", () => {
  it("moves the end that was pressed, by as much as the pointer, and sends it once", () => {
    open(oneDrag);
    tools.press(view, at(91, 51), "mouse");
    tools.move(view, at(101, 61));
    expect(store.drags.value[0]?.target).toEqual([100, 60]);
    expect(asked()).toEqual([]);
    tools.release();
    expect(asked()).toEqual([{ type: "move_drag", id: "d1", target: [100, 60] }]);
  });

  it("selects without moving on a click", () => {
    open(oneDrag);
    click(50, 50);
    expect(store.selected.value).toEqual({ id: "d1", end: "handle" });
    expect(asked()).toEqual([]);
  });

  it("takes hold of the handle where the run has brought it", () => {
    open({ ...going, drags: { d1: { handle: [50, 50], target: [90, 50], tracked: [70, 50] } } });
    pull([70, 50], [70, 80]);
    expect(asked()).toEqual([{ type: "move_drag", id: "d1", handle: [70, 80] }]);
  });

  it("re-aims while it is led about during a run, a few times a second", () => {
    open(going);
    const now = vi.spyOn(performance, "now");
    tools.press(view, at(90, 50), "mouse");
    for (let step = 0; step <= 10; step++) {
      now.mockReturnValue(10_000 + step * 50);
      tools.move(view, at(100 + step, 50));
    }
    expect(asked().length).toBeGreaterThan(2);
    expect(asked().length).toBeLessThan(6);
    tools.release();
    expect(asked().at(-1)).toEqual({ type: "move_drag", id: "d1", target: [110, 50] });
    now.mockRestore();
  });

  it("reaches further for fingers", () => {
    open(oneDrag);
    tools.press(view, at(60, 50), "mouse");
    tools.release();
    expect(store.half.value).not.toBeNull();
    tools.cancel();
    tools.press(view, at(60, 50), "touch");
    tools.release();
    expect(store.half.value).toBeNull();
    expect(store.selected.value).toEqual({ id: "d1", end: "handle" });
  });

  it("leaves everything alone for a viewer", () => {
    open(oneDrag);
    store.room.value = { ...store.room.value, role: "viewer" };
    pull([90, 50], [100, 60]);
    click(10, 10);
    expect(asked()).toEqual([]);
    expect(store.half.value).toBeNull();
  });
});

describe("the keyboard", () => {
  it("puts a point with the crosshair alone", () => {
    tools.pointByKey();
    expect(store.crosshair.value).toEqual([99.5, 49.5]);
    tools.nudge(view, [-1, 0], true);
    tools.place();
    tools.nudge(view, [0, 1], false);
    tools.nudge(view, [0, 1], true);
    tools.place();
    expect(asked()).toMatchObject([{ type: "add_drag", handle: [89.5, 49.5], target: [89.5, 60.5] }]);
    expect(store.crosshair.value).toBeNull();
  });

  it("gathers nudges into one edit", () => {
    vi.useFakeTimers();
    open(oneDrag);
    store.selected.value = { id: "d1", end: "target" };
    for (let i = 0; i < 5; i++) tools.nudge(view, [1, 0], false);
    expect(store.drags.value[0]?.target).toEqual([95, 50]);
    expect(asked()).toEqual([]);
    vi.advanceTimersByTime(1_000);
    expect(asked()).toEqual([{ type: "move_drag", id: "d1", target: [95, 50] }]);
  });

  it("sends a nudge before the other end is nudged", () => {
    vi.useFakeTimers();
    open(oneDrag);
    store.selected.value = { id: "d1", end: "target" };
    tools.nudge(view, [1, 0], false);
    store.selected.value = { id: "d1", end: "handle" };
    tools.nudge(view, [0, 1], false);
    vi.advanceTimersByTime(1_000);
    expect(asked()).toEqual([
      { type: "move_drag", id: "d1", target: [91, 50] },
      { type: "move_drag", id: "d1", handle: [50, 51] },
    ]);
  });

  it("dabs with the brush", () => {
    tools.choose("paint");
    tools.pointByKey();
    tools.place();
    expect(asked()).toMatchObject([
      { type: "add_stroke", stroke: { mode: "paint", radius: 10, points: [[99.5, 49.5]] } },
    ]);
  });
});

describe("the brush", () => {
  it("paints one stroke from press to release, and a dab on a click", () => {
    tools.choose("paint");
    pull([20, 20], [60, 20]);
    tools.choose("erase");
    click(30, 30);
    expect(asked()).toMatchObject([
      {
        type: "add_stroke",
        stroke: {
          mode: "paint",
          radius: 10,
          points: [
            [20, 20],
            [60, 20],
          ],
        },
      },
      { type: "add_stroke", stroke: { mode: "erase", points: [[30, 30]] } },
    ]);
  });

  it("breaks a stroke before the server would refuse its length", () => {
    tools.choose("paint");
    tools.press(view, at(0, 0), "mouse");
    for (let i = 1; i <= 2100; i++) tools.move(view, at(i % 2 === 0 ? 0 : 90, i % 100));
    tools.release();
    const lengths = asked().map((op) => (op.type === "add_stroke" ? op.stroke.points.length : 0));
    expect(lengths).toHaveLength(2);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(2000);
  });

  it("stays within sensible sizes", () => {
    for (let i = 0; i < 60; i++) tools.resizeBrush(1);
    expect(store.brush.value).toBe(50);
    for (let i = 0; i < 60; i++) tools.resizeBrush(-1);
    expect(store.brush.value).toBe(2);
  });
});

describe("the view", () => {
  beforeEach(() => {
    store.canvasSize.value = { width: 420, height: 240 };
  });

  it("is moved by the hand, and by any tool while the space bar is down", () => {
    tools.choose("hand");
    pull([50, 50], [60, 55]);
    expect(store.camera.value).toEqual({ scale: 2, x: 30, y: 30 });
    tools.choose("points");
    store.spaceHeld.value = true;
    pull([50, 50], [60, 55]);
    store.spaceHeld.value = false;
    expect(asked()).toEqual([]);
    expect(store.half.value).toBeNull();
  });

  it("fits until somebody moves it, and again when asked", () => {
    expect(store.camera.value).toBeNull();
    tools.zoom(2);
    expect(store.camera.value?.scale).toBeGreaterThan(2);
    tools.zoomToActualSize();
    expect(store.view.value.scale).toBeCloseTo(1);
    tools.zoomToFit();
    expect(store.camera.value).toBeNull();
  });

  it("follows a second finger, which ends what the first had begun, and keeps the handle that waits", () => {
    click(30, 40);
    tools.press(view, at(60, 40), "touch");
    tools.letGo();
    tools.release();
    expect(asked()).toEqual([]);
    expect(store.half.value).toEqual([30, 40]);
  });

  it("is moved by viewers too", () => {
    store.room.value = { ...store.room.value, role: "viewer" };
    pull([50, 50], [60, 55]);
    expect(store.camera.value).not.toBeNull();
    expect(asked()).toEqual([]);
  });
});

it("duplicates a drag beside itself, inside the picture", () => {
  open(oneDrag);
  tools.duplicate("d1");
  expect(asked()).toMatchObject([{ type: "add_drag", handle: [62, 62], target: [102, 62] }]);
  tools.duplicate("nothing");
  expect(asked()).toHaveLength(1);
});
