// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { oneDrag, openRoom, pendingRequests, runOf } from "../room/fixtures.ts";
import type { Document, Outcome, Progress, XY } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { Dock } from "./Dock.tsx";

beforeEach(() => openRoom());
afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

const stage = () => screen.getByTestId("stage").textContent;
const button = (name: string) => screen.getByRole("button", { name });
const running = { ...oneDrag, run: runOf() };
const progress = (changes: Partial<Progress>): Progress => ({
  type: "progress",
  run: "r1",
  stage: "dragging",
  step: 7,
  steps: 80,
  seconds: 1,
  seconds_left: 12,
  loss: null,
  ...changes,
});

it("starts a run once there is a point", () => {
  const { rerender } = render(<Dock />);
  expect(stage()).toContain("No points yet");
  expect(button("Drag").getAttribute("aria-disabled")).toBe("true");
  fireEvent.click(button("Drag"));
  expect(pendingRequests()).toEqual([]);
  openRoom(oneDrag);
  rerender(<Dock />);
  expect(stage()).toBe("ReadyPress Drag when the points are in place");
  fireEvent.click(button("Drag"));
  expect(pendingRequests()).toMatchObject([{ type: "run" }]);
});

it("does not take a double click on Drag for Stop", () => {
  const now = vi.spyOn(performance, "now").mockReturnValue(10_000);
  openRoom(oneDrag);
  const { rerender } = render(<Dock />);
  fireEvent.click(button("Drag"));
  store.room.value = { ...store.room.value, pending: [], document: running };
  rerender(<Dock />);
  now.mockReturnValue(10_200);
  fireEvent.click(button("Stop"));
  expect(pendingRequests()).toEqual([]);
  now.mockReturnValue(10_500);
  fireEvent.click(button("Stop"));
  expect(pendingRequests()).toMatchObject([{ type: "stop" }]);
  rerender(<Dock />);
  expect(stage()).toBe("Stopping…");
});

it.each([
  [progress({}), "Draggingiteration 7/80 · 12 s left"],
  [progress({ step: 1 }), "Draggingiteration 1/80"],
  [progress({ step: 4 }), "Draggingiteration 4/80"],
  [progress({ step: 7, steps: 40, seconds_left: 0.4 }), "Draggingiteration 7/40"],
  [
    progress({ stage: "queued", step: 2, steps: 0, seconds_left: 100 }),
    "Waiting in the queue2 pictures ahead · 2 min left",
  ],
  [progress({ stage: "loading", step: 0, steps: 1, seconds_left: null }), "Loading the model"],
  [progress({ stage: "fitting", step: 20 }), "Learning your picture20/80 · 12 s left"],
  [progress({ stage: "rendering", step: 35, steps: 35, seconds_left: 0 }), "Rendering35/35 · nearly done"],
])("shows the progress of a run: %#", (message, text) => {
  openRoom(running, { progress: message });
  render(<Dock />);
  expect(stage()).toBe(text);
});

it("fills the bar of the stage that is under way", () => {
  openRoom(running, { progress: progress({ step: 20 }) });
  render(<Dock />);
  const bar = screen.getByRole("progressbar", { name: "Dragging" });
  expect(bar.getAttribute("aria-valuenow")).toBe("25");
  expect([...bar.querySelectorAll("i")].map((part) => part.style.transform)).toEqual([
    "scaleX(1)",
    "scaleX(1)",
    "scaleX(0.25)",
    "scaleX(0)",
  ]);
});

it.each<readonly [Outcome, string]>([
  ["arrived", "Reached the targetin 23 iterations"],
  ["stopped", "Stopped.Press Drag to continue."],
  ["exhausted", "Stopped at the limit.Press Drag to continue."],
  ["failed", "The run failed.out of memory"],
  ["kept", "Kept as the result.Press Drag to let the model render it from the start"],
])("says how a run ended: %s", (outcome, text) => {
  openRoom({
    ...oneDrag,
    drags: { d1: { handle: [50, 50], target: [90, 50], tracked: [88, 50] } },
    run: runOf({ outcome, iterations: 23, message: outcome === "failed" ? "out of memory" : null }),
  });
  render(<Dock />);
  expect(stage()).toBe(text);
});

it.each<readonly [string, readonly XY[], string]>([
  ["moved since", [[60, 50]], "Point 1 has 30 px to go.Press Drag to continue."],
  [
    "moved and added since",
    [
      [88, 50],
      [20, 50],
      [30, 50],
    ],
    "2 points have not reached their targets.Press Drag to continue.",
  ],
])("tells how far the points are, whatever the run ended with: %s", (_, places, text) => {
  const drags = places.map((tracked, index) => [`d${index}`, { handle: [50, 50], target: [90, 50], tracked }] as const);
  openRoom({
    ...oneDrag,
    drags: Object.fromEntries(drags) as Document["drags"],
    run: runOf({ outcome: "arrived", iterations: 23 }),
  });
  render(<Dock />);
  expect(stage()).toBe(text);
});

it.each<Document["run"]>([null, runOf({ outcome: "arrived" })])("warns of a point that cannot move: %#", (run) => {
  const mask = [{ type: "stroke", id: "s", mode: "paint", radius: 5, points: [[150, 50]] }] as const;
  openRoom({ ...oneDrag, mask, run });
  render(<Dock />);
  expect(stage()).toBe(
    "Point 1 is outside the editable area.Nothing can move there. Paint over it, or move the point.",
  );
});

it("says that an interrupted run can be continued", () => {
  openRoom({ ...oneDrag, run: runOf({ interrupted: true }) });
  render(<Dock />);
  expect(stage()).toBe("InterruptedThe server stopped during the run. Press Drag to continue.");
});

it("shows the preparation while it is ready", () => {
  const prepared = {
    type: "prepared",
    stage: "fitting",
    step: 20,
    steps: 80,
    seconds_left: 12,
    ignored_prompt: "",
    unknown: false,
  } as const;
  openRoom(oneDrag, { prepared });
  render(<Dock />);
  expect(stage()).toContain("Learning your picture 20/80 · 12 s left");
  // It is not read out step by step.
  expect(screen.getByRole("status").textContent.trim()).toBe("Ready");
});

it("says that the connection is lost, or the engine restarting", () => {
  openRoom(running);
  store.connection.value = { state: "lost", retryAt: null, serverStopped: false };
  const { rerender } = render(<Dock />);
  expect(stage()).toBe("OfflineThe run continues as long as the server is up");
  openRoom(running, { engine: "restarting" });
  rerender(<Dock />);
  expect(stage()).toBe("The engine is restartingRuns resume automatically");
});

it("offers what there is to download", () => {
  const moments = [0, 1].map((id) => ({ id, parent: null, iteration: id, time: 0, thumbnail: true }));
  openRoom({ ...oneDrag, result: { sha256: "1", run: "r1" } }, { moments, capabilities: ["mp4"] });
  const { rerender } = render(<Dock />);
  const items = () => [...document.querySelectorAll(".menu-item:has(small)")].map((item) => item.textContent);
  expect(items()).toEqual([
    "Picture (PNG) At the original size",
    "Animation (WebP) Every stored iteration",
    "Video (MP4) Every stored iteration",
    "Room (ZIP) Everything in it, to open elsewhere",
  ]);
  openRoom(oneDrag, { role: "viewer" });
  rerender(<Dock />);
  expect(items()).toEqual([]);
});

it("shows viewers neither Drag nor Reset", () => {
  openRoom(oneDrag, { role: "viewer" });
  render(<Dock />);
  expect(screen.queryByRole("button", { name: "Drag" })).toBeNull();
  expect(screen.queryByRole("button", { name: "Reset" })).toBeNull();
  expect(stage()).toBe("View onlyAsk for an edit link to make changes.");
});

it("shows the original while Compare is held with a key", () => {
  openRoom({ ...oneDrag, result: { sha256: "1", run: "r1" } });
  store.result.value = store.original.value;
  render(<Dock />);
  fireEvent.keyDown(button("Hold to compare"), { key: "Enter" });
  expect(store.showing.value).toBe("original");
  fireEvent.keyUp(button("Hold to compare"), { key: "Enter" });
  expect(store.showing.value).toBe("result");
});
