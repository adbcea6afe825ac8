// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { blankDocument, oneDrag, openRoom, pendingRequests, runOf } from "../room/fixtures.ts";
import { toCanvas } from "../room/geometry.ts";
import type { Document } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { Canvas } from "./Canvas.tsx";
import { cancel } from "./pointer.ts";

beforeEach(() => {
  // happy-dom has no pointer capture.
  vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => undefined }));
  HTMLCanvasElement.prototype.setPointerCapture = () => undefined;
  cancel();
  openRoom();
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

const canvas = () => screen.getByRole("application", { name: "Picture" });

/** A pointer event at a place of the picture. */
function pointer(kind: "Down" | "Move" | "Up", x: number, y: number, more: PointerEventInit = {}): void {
  const [clientX, clientY] = toCanvas(store.view.value, [x, y]);
  fireEvent[`pointer${kind}`](canvas(), { clientX, clientY, button: 0, isPrimary: true, pointerId: 1, ...more });
}

function click(x: number, y: number): void {
  pointer("Down", x, y);
  pointer("Up", x, y);
}

it("says that the picture is being opened until it is there", () => {
  store.original.value = null;
  render(<Canvas />);
  expect(screen.getByRole("status").textContent).toBe("Opening the picture…");
  expect(screen.queryByTestId("hint")).toBeNull();
});

it("leads from the handle to the target, and sends the drag", async () => {
  render(<Canvas />);
  expect(screen.getByTestId("hint").textContent).toBe("Click on something you want to move");
  click(30, 40);
  expect((await screen.findByRole("button", { name: "Cancel" })).title).toBe("Esc");
  expect(screen.getByTestId("hint").textContent).toBe("Now click where it should go");
  click(60, 45);
  expect(pendingRequests()).toMatchObject([{ op: { type: "add_drag", handle: [30, 40], target: [60, 45] } }]);
  await vi.waitFor(() => expect(screen.queryByTestId("hint")).toBeNull());
});

it("drops the pending handle on Cancel", async () => {
  render(<Canvas />);
  click(30, 40);
  fireEvent.click(await screen.findByRole("button", { name: "Cancel" }));
  expect(store.pendingHandle.value).toBeNull();
});

it("drags the end that is pressed", () => {
  openRoom(oneDrag);
  render(<Canvas />);
  pointer("Down", 90, 50);
  pointer("Move", 100, 60);
  pointer("Up", 100, 60);
  expect(pendingRequests()).toMatchObject([{ op: { type: "move_drag", id: "d1", target: [100, 60] } }]);
});

it("zooms with two fingers and places nothing", () => {
  render(<Canvas />);
  const before = store.view.value.scale;
  const touch = { pointerType: "touch" };
  pointer("Down", 80, 50, touch);
  pointer("Down", 120, 50, { ...touch, pointerId: 2, isPrimary: false });
  pointer("Move", 160, 50, { ...touch, pointerId: 2, isPrimary: false });
  pointer("Up", 160, 50, { ...touch, pointerId: 2, isPrimary: false });
  pointer("Up", 80, 50, touch);
  expect(store.view.value.scale).toBeGreaterThan(before * 1.5);
  expect(store.pendingHandle.value).toBeNull();
  expect(pendingRequests()).toEqual([]);
});

it("zooms around the pointer with the wheel", () => {
  render(<Canvas />);
  const [clientX, clientY] = toCanvas(store.view.value, [100, 50]);
  // happy-dom's wheel events have no place.
  const turn = new MouseEvent("wheel", { clientX, clientY, bubbles: true, cancelable: true });
  fireEvent(canvas(), Object.assign(turn, { deltaX: 0, deltaY: -240, deltaMode: 0 }));
  const [x, y] = toCanvas(store.view.value, [100, 50]);
  expect(x).toBeCloseTo(clientX, 6);
  expect(y).toBeCloseTo(clientY, 6);
  expect(store.camera.value).not.toBeNull();
});

it("says what it shows", async () => {
  openRoom({ ...oneDrag, run: runOf({ outcome: "stopped" }), result: { sha256: "1", run: "r1" } });
  store.result.value = store.original.value;
  render(<Canvas />);
  expect(screen.getByTestId("showing").textContent).toBe("Result");
  store.comparing.value = true;
  await vi.waitFor(() => expect(screen.getByTestId("showing").textContent).toBe("Original"));
});

it("says that a quick preview is not the result yet", async () => {
  openRoom(oneDrag);
  store.quickPreviewShown.value = true;
  render(<Canvas />);
  expect(screen.getByTestId("quick-preview").textContent).toContain("Quick preview. Press Drag to render.");
  store.room.value = { ...store.room.value, role: "viewer" };
  await vi.waitFor(() =>
    expect(screen.getByTestId("quick-preview").textContent).toBe("Quick preview. Nothing has been rendered yet."),
  );
});

it("keeps the quick preview, while it is one of the original", async () => {
  const asked = vi.spyOn(globalThis, "fetch").mockResolvedValue(new Response("{}"));
  const button = () => screen.queryByRole("button", { name: "Keep quick preview" });
  const show = (document: Document) => {
    cleanup();
    openRoom(document);
    store.quickPreviewShown.value = true;
    render(<Canvas />);
  };
  const ran = { ...oneDrag, result: { sha256: "r", run: "r1" } };
  show({ ...ran, run: runOf({ outcome: "arrived" }) });
  expect(button()).toBeNull();
  show({ ...oneDrag, run: runOf() });
  expect(button()).toBeNull();
  show(oneDrag);
  store.room.value = { ...store.room.value, role: "viewer" };
  await vi.waitFor(() => expect(button()).toBeNull());
  show(oneDrag);
  fireEvent.click(screen.getByRole("button", { name: "Keep quick preview" }));
  await vi.waitFor(() => expect(asked).toHaveBeenCalledTimes(1));
  expect(asked.mock.calls[0]?.[0]).toMatch(/quick-preview$/);
  expect(asked.mock.calls[0]?.[1]?.method).toBe("POST");
  asked.mockRestore();
});

it("hints at painting until the mask has a layer", async () => {
  store.tool.value = "paint";
  render(<Canvas />);
  expect(screen.getByTestId("hint").textContent).toBe("Paint the area that may change. The rest stays as it is.");
  openRoom({ ...blankDocument, mask: [{ type: "invert", id: "i1" }] });
  store.tool.value = "paint";
  await vi.waitFor(() => expect(screen.queryByTestId("hint")).toBeNull());
});

it("gives viewers no hints and lets them move the view only", () => {
  openRoom(oneDrag, { role: "viewer" });
  render(<Canvas />);
  expect(screen.queryByTestId("hint")).toBeNull();
  click(10, 10);
  pointer("Down", 90, 50);
  pointer("Move", 120, 60);
  pointer("Up", 120, 60);
  expect(pendingRequests()).toEqual([]);
  expect(store.camera.value).not.toBeNull();
});
