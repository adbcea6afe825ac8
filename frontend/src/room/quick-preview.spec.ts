import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { bitmap, oneDrag, runOf } from "./fixtures.ts";
import type { Document, XY } from "./protocol.ts";
import { receive } from "./room.ts";
import * as store from "./store.ts";

const run = runOf();
const drags = () => store.quickPreview.value?.drags.map(({ handle, target }) => [handle, target]);
const drag = (from: XY, to: XY) => [from, to];

let seq = 0;
function open(document: Document): void {
  store.room.value = receive(store.room.value, { type: "snapshot", seq: ++seq, document });
}

beforeEach(() => {
  store.resetStore();
  store.original.value = bitmap;
  open(oneDrag);
});
afterEach(store.resetStore);

describe("before a run", () => {
  it("warps the original from handles to targets", () => {
    expect(store.quickPreview.value?.of).toBe("original");
    expect(drags()).toEqual([drag([50, 50], [90, 50])]);
  });

  it("follows a target that is being moved or created", () => {
    store.gesture.value = { kind: "move", id: "d1", end: "target", at: [70, 60] };
    expect(drags()).toEqual([drag([50, 50], [70, 60])]);
    store.gesture.value = { kind: "create", handle: [10, 10], target: [20, 10] };
    expect(drags()).toEqual([drag([50, 50], [90, 50]), drag([10, 10], [20, 10])]);
  });

  it("is hidden while the picture has to be seen as it is", () => {
    for (const [hide, show] of [
      [() => (store.comparing.value = true), () => (store.comparing.value = false)],
      [() => (store.pendingHandle.value = [3, 3]), () => (store.pendingHandle.value = null)],
      [() => (store.crosshair.value = [3, 3]), () => (store.crosshair.value = null)],
      [() => (store.tool.value = "paint"), () => (store.tool.value = "points")],
      [
        () => (store.gesture.value = { kind: "create", handle: [3, 3], target: null }),
        () => (store.gesture.value = null),
      ],
      [
        () => (store.gesture.value = { kind: "move", id: "d1", end: "handle", at: [3, 3] }),
        () => (store.gesture.value = null),
      ],
    ] as const) {
      hide();
      expect(store.quickPreview.value).toBeNull();
      show();
      expect(store.quickPreview.value).not.toBeNull();
    }
  });

  it("needs a drag and a picture", () => {
    open({ ...oneDrag, drags: {} });
    expect(store.quickPreview.value).toBeNull();
    open(oneDrag);
    store.original.value = null;
    expect(store.quickPreview.value).toBeNull();
  });
});

describe("during a run", () => {
  it("stays behind the run's previews, whatever the points do", () => {
    open({ ...oneDrag, run });
    expect(drags()).toEqual([drag([50, 50], [90, 50])]);
    open({ ...oneDrag, run, drags: { d1: { handle: [50, 50], target: [90, 50], tracked: [55, 50] } } });
    expect(drags()).toEqual([drag([50, 50], [90, 50])]);
    store.preview.value = { frame: { run: "r1" } as never, bitmap };
    expect(store.showing.value).toBe("preview");
    expect(store.quickPreview.value).toMatchObject({ of: "original", behind: true });
    expect(drags()).toEqual([drag([50, 50], [90, 50])]);
  });

  it("is seen less the nearer the points are, and not at all while the result is rendered", () => {
    const progress = { type: "progress", run: "r1", step: 1, steps: 9, seconds: 1, seconds_left: 1, loss: 0 } as const;
    const opacityAt = (x: number, stage: "dragging" | "rendering") => {
      open({ ...oneDrag, run, drags: { d1: { handle: [50, 50], target: [90, 50], tracked: [x, 50] } } });
      store.room.value = { ...store.room.value, progress: { ...progress, stage } };
      return store.previewOpacity.value;
    };
    expect(opacityAt(50, "dragging")).toBeCloseTo(0.65);
    expect(opacityAt(70, "dragging")).toBeCloseTo(0.825);
    expect(opacityAt(90, "dragging")).toBeCloseTo(1);
    expect(opacityAt(50, "rendering")).toBe(1);
  });

  it("does not follow a target: the run does", () => {
    open({ ...oneDrag, run });
    store.gesture.value = { kind: "move", id: "d1", end: "target", at: [70, 60] };
    expect(store.quickPreview.value).toBeNull();
  });
});

describe("after a run", () => {
  const done: Document = {
    ...oneDrag,
    drags: { d1: { handle: [50, 50], target: [90, 50], tracked: [88, 50] } },
    run: { ...run, outcome: "arrived" },
    result: { sha256: "1".repeat(64), run: "r1" },
  };

  beforeEach(() => {
    open(done);
    store.result.value = bitmap;
  });

  it("has nothing to say of what was dragged", () => {
    expect(store.quickPreview.value).toBeNull();
  });

  it("continues from the result with what was added or re-aimed since; the rest holds its place", () => {
    open({ ...done, drags: { ...done.drags, b: { handle: [20, 20], target: [30, 20], tracked: null } } });
    expect(store.quickPreview.value?.of).toBe("result");
    expect(drags()).toEqual([drag([88, 50], [88, 50]), drag([20, 20], [30, 20])]);
    open(done);
    store.gesture.value = { kind: "move", id: "d1", end: "target", at: [120, 50] };
    expect(drags()).toEqual([drag([88, 50], [120, 50])]);
    store.gesture.value = null;
    store.unrenderedDrags.value = new Set(["d1"]);
    expect(drags()).toEqual([drag([88, 50], [90, 50])]);
  });
});
