import { beforeEach, describe, expect, it, vi } from "vitest";
import { blankDocument, oneDrag, runOf } from "../room/fixtures.ts";
import { toCanvas } from "../room/geometry.ts";
import type { Document, Operation, XY } from "../room/protocol.ts";
import { receive } from "../room/room.ts";
import * as store from "../room/store.ts";
import { duplicateDrag } from "../room/actions.ts";
import { resizeBrush } from "./brush.ts";
import { zoom, zoomToActualSize, zoomToFit } from "./camera.ts";
import { moveByKey, placeAtCrosshair, showCrosshairOrPlace } from "./crosshair.ts";
import { cancel, chooseTool, dropGesture, move, press, release } from "./pointer.ts";

const view = { scale: 2, x: 10, y: 20 };
const at = (x: number, y: number): XY => toCanvas(view, [x, y]);

/** The edits for the server, all pending as there is no connection. */
const sent = (): readonly Operation[] =>
  store.room.value.pending.flatMap((request) => (request.type === "edit" ? [request.op] : []));

function open(document: Document): void {
  store.room.value = receive(store.room.value, { type: "snapshot", seq: 1, document });
  store.brushRadius.value = 10;
}

function click(x: number, y: number): void {
  press(view, at(x, y), "mouse");
  release();
}

function pull(from: XY, to: XY): void {
  press(view, at(...from), "mouse");
  move(view, at(...to));
  release();
}

const going: Document = { ...oneDrag, run: runOf() };

beforeEach(() => {
  vi.useRealTimers();
  cancel();
  store.resetStore();
  open(blankDocument);
});

describe("putting points", () => {
  it("takes a click for the handle and the next for its target", () => {
    click(30, 40);
    expect(sent()).toEqual([]);
    expect(store.pendingHandle.value).toEqual([30, 40]);
    click(60, 45);
    expect(sent()).toMatchObject([{ type: "add_drag", handle: [30, 40], target: [60, 45] }]);
    expect(store.pendingHandle.value).toBeNull();
    expect(store.selected.value?.end).toBe("target");
  });

  it("takes a press that is pulled for both", () => {
    pull([30, 40], [80, 90]);
    expect(sent()).toMatchObject([{ type: "add_drag", handle: [30, 40], target: [80, 90] }]);
  });

  it("pulls the target out of a handle that waits for it", () => {
    click(30, 40);
    pull([30, 40], [70, 40]);
    expect(sent()).toMatchObject([{ handle: [30, 40], target: [70, 40] }]);
  });

  it("keeps targets on the picture and takes no handle beside it", () => {
    pull([30, 40], [500, -80]);
    expect(sent()).toMatchObject([{ target: [199, 0] }]);
    click(-20, 50);
    expect(store.pendingHandle.value).toBeNull();
  });

  it("drops the pending handle on cancel", () => {
    click(30, 40);
    expect(cancel()).toBe(true);
    expect(store.pendingHandle.value).toBeNull();
    expect(cancel()).toBe(false);
  });

  it("keeps the handle where the target would lie on it", () => {
    click(30, 40);
    store.tool.value = "points";
    showCrosshairOrPlace();
    expect(placeAtCrosshair()).toBe(true);
    expect(sent()).toEqual([]);
    expect(store.pendingHandle.value).toEqual([30, 40]);
    expect(store.toasts.value.at(-1)?.kind).toBe("error");
  });
});

describe("moving points", () => {
  it("moves the end that was pressed, by as much as the pointer, and sends it once", () => {
    open(oneDrag);
    press(view, at(91, 51), "mouse");
    move(view, at(101, 61));
    expect(store.drags.value[0]?.target).toEqual([100, 60]);
    expect(sent()).toEqual([]);
    release();
    expect(sent()).toEqual([{ type: "move_drag", id: "d1", target: [100, 60] }]);
  });

  it("selects without moving on a click", () => {
    open(oneDrag);
    click(50, 50);
    expect(store.selected.value).toEqual({ id: "d1", end: "handle" });
    expect(sent()).toEqual([]);
  });

  it("takes hold of the handle where the run has brought it", () => {
    open({ ...going, drags: { d1: { handle: [50, 50], target: [90, 50], tracked: [70, 50] } } });
    pull([70, 50], [70, 80]);
    expect(sent()).toEqual([{ type: "move_drag", id: "d1", handle: [70, 80] }]);
  });

  it.each<XY>([
    [90, 50],
    [87, 50],
    [93, 50],
    [83, 51],
  ])("pulls the target of a pair that has arrived, wherever it is pressed: %j, %j", (x, y) => {
    const arrived = { handle: [50, 50], target: [90, 50], tracked: [87, 50] } as const;
    open({ ...oneDrag, run: runOf({ outcome: "arrived" }), drags: { d1: arrived } });
    pull([x, y], [x + 30, y + 20]);
    expect(sent()).toEqual([{ type: "move_drag", id: "d1", target: [120, 70] }]);
  });

  it("tells the ends of a short drag apart that has not run", () => {
    open({ ...oneDrag, drags: { d1: { handle: [86, 50], target: [90, 50], tracked: null } } });
    pull([86, 50], [60, 50]);
    expect(sent()).toEqual([{ type: "move_drag", id: "d1", handle: [60, 50] }]);
  });

  it("re-aims while it is led about during a run, a few times a second", () => {
    open(going);
    const now = vi.spyOn(performance, "now");
    press(view, at(90, 50), "mouse");
    for (let step = 0; step <= 10; step++) {
      now.mockReturnValue(10_000 + step * 50);
      move(view, at(100 + step, 50));
    }
    expect(sent().length).toBeGreaterThan(2);
    expect(sent().length).toBeLessThan(6);
    release();
    expect(sent().at(-1)).toEqual({ type: "move_drag", id: "d1", target: [110, 50] });
    now.mockRestore();
  });

  it("reaches further for fingers", () => {
    open(oneDrag);
    press(view, at(60, 50), "mouse");
    release();
    expect(store.pendingHandle.value).not.toBeNull();
    cancel();
    press(view, at(60, 50), "touch");
    release();
    expect(store.pendingHandle.value).toBeNull();
    expect(store.selected.value).toEqual({ id: "d1", end: "handle" });
  });

  it("leaves everything alone for a viewer", () => {
    open(oneDrag);
    store.room.value = { ...store.room.value, role: "viewer" };
    pull([90, 50], [100, 60]);
    click(10, 10);
    expect(sent()).toEqual([]);
    expect(store.pendingHandle.value).toBeNull();
  });
});

describe("the keyboard", () => {
  it("puts a point with the crosshair alone", () => {
    showCrosshairOrPlace();
    expect(store.crosshair.value).toEqual([99.5, 49.5]);
    moveByKey(view, [-1, 0], true);
    placeAtCrosshair();
    moveByKey(view, [0, 1], false);
    moveByKey(view, [0, 1], true);
    placeAtCrosshair();
    expect(sent()).toMatchObject([{ type: "add_drag", handle: [89.5, 49.5], target: [89.5, 60.5] }]);
    expect(store.crosshair.value).toBeNull();
  });

  it("gathers nudges into one edit", () => {
    vi.useFakeTimers();
    open(oneDrag);
    store.selected.value = { id: "d1", end: "target" };
    for (let i = 0; i < 5; i++) moveByKey(view, [1, 0], false);
    expect(store.drags.value[0]?.target).toEqual([95, 50]);
    expect(sent()).toEqual([]);
    vi.advanceTimersByTime(1_000);
    expect(sent()).toEqual([{ type: "move_drag", id: "d1", target: [95, 50] }]);
  });

  it("sends a nudge before the other end is nudged", () => {
    vi.useFakeTimers();
    open(oneDrag);
    store.selected.value = { id: "d1", end: "target" };
    moveByKey(view, [1, 0], false);
    store.selected.value = { id: "d1", end: "handle" };
    moveByKey(view, [0, 1], false);
    vi.advanceTimersByTime(1_000);
    expect(sent()).toEqual([
      { type: "move_drag", id: "d1", target: [91, 50] },
      { type: "move_drag", id: "d1", handle: [50, 51] },
    ]);
  });

  it("dabs with the brush", () => {
    chooseTool("paint");
    showCrosshairOrPlace();
    placeAtCrosshair();
    expect(sent()).toMatchObject([
      { type: "add_stroke", stroke: { mode: "paint", radius: 10, points: [[99.5, 49.5]] } },
    ]);
  });
});

describe("the brush", () => {
  it("paints one stroke from press to release, and a dab on a click", () => {
    chooseTool("paint");
    pull([20, 20], [60, 20]);
    chooseTool("erase");
    click(30, 30);
    expect(sent()).toMatchObject([
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
    chooseTool("paint");
    press(view, at(0, 0), "mouse");
    for (let i = 1; i <= 2100; i++) move(view, at(i % 2 === 0 ? 0 : 90, i % 100));
    release();
    const lengths = sent().map((op) => (op.type === "add_stroke" ? op.stroke.points.length : 0));
    expect(lengths).toHaveLength(2);
    expect(Math.max(...lengths)).toBeLessThanOrEqual(2000);
  });

  it("stays within sensible sizes", () => {
    for (let i = 0; i < 60; i++) resizeBrush(1);
    expect(store.brushRadius.value).toBe(50);
    for (let i = 0; i < 60; i++) resizeBrush(-1);
    expect(store.brushRadius.value).toBe(2);
  });
});

describe("the view", () => {
  beforeEach(() => {
    store.canvasSize.value = { width: 420, height: 240 };
  });

  it("is moved by the hand, and by any tool while the space bar is down", () => {
    chooseTool("hand");
    pull([50, 50], [60, 55]);
    expect(store.camera.value).toEqual({ scale: 2, x: 30, y: 30 });
    chooseTool("points");
    store.spaceHeld.value = true;
    pull([50, 50], [60, 55]);
    store.spaceHeld.value = false;
    expect(sent()).toEqual([]);
    expect(store.pendingHandle.value).toBeNull();
  });

  it("fits until it is moved, and again on request", () => {
    expect(store.camera.value).toBeNull();
    zoom(2);
    expect(store.camera.value?.scale).toBeGreaterThan(2);
    zoomToActualSize();
    expect(store.view.value.scale).toBeCloseTo(1);
    zoomToFit();
    expect(store.camera.value).toBeNull();
  });

  it("follows a second finger, which ends what the first had begun, and keeps the handle that waits", () => {
    click(30, 40);
    press(view, at(60, 40), "touch");
    dropGesture();
    release();
    expect(sent()).toEqual([]);
    expect(store.pendingHandle.value).toEqual([30, 40]);
  });

  it("is moved by viewers too", () => {
    store.room.value = { ...store.room.value, role: "viewer" };
    pull([50, 50], [60, 55]);
    expect(store.camera.value).not.toBeNull();
    expect(sent()).toEqual([]);
  });
});

it("duplicates a drag beside itself, inside the picture", () => {
  open(oneDrag);
  duplicateDrag("d1");
  expect(sent()).toMatchObject([{ type: "add_drag", handle: [62, 62], target: [102, 62] }]);
  duplicateDrag("nothing");
  expect(sent()).toHaveLength(1);
});
