// @vitest-environment happy-dom

import { cleanup, render, screen } from "@testing-library/preact";
import { afterEach, expect, it } from "vitest";
import { oneDrag, openRoom, runOf } from "../room/fixtures.ts";
import type { Points } from "../room/protocol.ts";
import { receive } from "../room/room.ts";
import * as store from "../room/store.ts";
import { PointList } from "./Points.tsx";

afterEach(cleanup);

const point = () => screen.getByTestId("point-1").textContent;
const running = { ...oneDrag, run: runOf() };
const points = (changes: Partial<Points>): Points => ({
  type: "points",
  run: "r1",
  iteration: 3,
  handles: { d1: [88, 50] },
  distances: { d1: 2 },
  loss: 1,
  content: {},
  lost: [],
  ...changes,
});

function show(...messages: readonly Points[]): void {
  for (const message of messages) store.room.value = receive(store.room.value, message);
  render(<PointList />);
}

it("says how far the content is in the picture where that differs from the tracked point", () => {
  openRoom(running);
  show(points({ content: { d1: 39 } }), points({ iteration: 4 }));
  expect(point()).toContain("39 px to go in the picture");
});

it("does not say it twice where both agree", () => {
  openRoom(running);
  show(points({ content: { d1: 4 } }));
  expect(point()).not.toContain("in the picture");
});

it("says that the content did not follow, and what may help once the run has ended", () => {
  openRoom(running);
  show(points({ lost: ["d1"], content: { d1: 40 } }));
  expect(screen.getByTestId("lost-1").textContent?.trim()).toBe("The content did not follow.");
  cleanup();
  const run = runOf({ outcome: "exhausted", iterations: 9 });
  store.room.value = receive(store.room.value, {
    type: "ended",
    seq: 2,
    run,
    tracked: { d1: [88, 50] },
    result: null,
    lost: ["d1"],
  });
  show();
  expect(screen.getByTestId("lost-1").textContent).toContain("Try another place for the handle");
  expect(point()).not.toContain("reached");
});

it("forgets it when the point is moved or a run starts", () => {
  const lost = { handle: [50, 50], target: [90, 50], tracked: [88, 50], lost: true } as const;
  openRoom({ ...oneDrag, drags: { d1: lost } });
  const op = { type: "move_drag", id: "d1", target: [95, 50] } as const;
  const moved = receive(store.room.value, {
    type: "edited",
    seq: 2,
    op_id: "o",
    by: "me",
    op,
    undoes: null,
    redoes: null,
  });
  expect(moved.document?.drags.d1?.lost ?? false).toBe(false);
  const started = receive(store.room.value, { type: "started", seq: 2, op_id: "o", run: runOf() });
  expect(started.document?.drags.d1?.lost).toBe(false);
});
