// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { recentRooms } from "../room/recent-rooms.ts";
import type { Sample } from "./api.ts";
import { candidates, ongoing, requested } from "./generation.ts";
import type { PictureOpener } from "./picture-opener.ts";
import { Landing } from "./Landing.tsx";

const samples: readonly Sample[] = [
  {
    name: "teddy-bear",
    title: "Teddy bear",
    picture: "/samples/teddy-bear.png",
    mask: null,
    prompt: "a teddy bear",
    drags: [{ handle: [10, 10], target: [20, 10] }],
    credit: "Fluent Emoji",
  },
];

const enter = vi.fn();
const calls = {
  open: vi.fn(),
  openSample: vi.fn(),
  openGeneration: vi.fn(),
  generate: vi.fn(),
  generateMissing: vi.fn(),
};
const opener: PictureOpener = { busy: false, dragOver: false, dropped: null, passwordRequest: null, ...calls };

function show(changes: Partial<PictureOpener> = {}): void {
  render(<Landing opener={{ ...opener, ...changes }} enter={enter} />);
}

beforeEach(() => {
  vi.stubGlobal("fetch", (path: string) =>
    Promise.resolve(new Response(JSON.stringify(path === "/healthz" ? { model: "built-in" } : samples))),
  );
  vi.stubGlobal("matchMedia", () => ({ matches: false }));
  HTMLElement.prototype.scrollIntoView = () => undefined;
  recentRooms.value = [];
  candidates.value = [];
  ongoing.value = null;
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.clearAllMocks();
});

it("opens the file that is chosen", () => {
  show();
  const file = new File(["png"], "bear.png", { type: "image/png" });
  fireEvent.change(screen.getByTestId("picture-file"), { target: { files: [file] } });
  expect(calls.open).toHaveBeenCalledWith(file);
});

it("says that a picture is being opened, and takes no other meanwhile", async () => {
  show({ busy: true });
  expect(screen.getByText("Opening your picture…").getAttribute("role")).toBe("status");
  expect(screen.getByTestId<HTMLInputElement>("picture-file").disabled).toBe(true);
  expect(await screen.findByRole<HTMLButtonElement>("button", { name: "Open the sample “Teddy bear”" })).toHaveProperty(
    "disabled",
    true,
  );
});

it("opens samples, and says whose they are", async () => {
  show();
  fireEvent.click(await screen.findByRole("button", { name: "Open the sample “Teddy bear”" }));
  expect(calls.openSample).toHaveBeenCalledWith(samples[0]);
  expect(screen.getByText("Pictures: Fluent Emoji")).toBeTruthy();
});

it("works without samples", async () => {
  const warn = vi.spyOn(console, "warn").mockReturnValue(undefined);
  vi.stubGlobal("fetch", () => Promise.resolve(new Response("{}", { status: 500 })));
  show();
  await vi.waitFor(() => expect(warn).toHaveBeenCalled());
  expect(screen.getByTestId("picture-file")).toBeTruthy();
  expect(screen.queryByText("Or start with a sample")).toBeNull();
});

it("shows a recording that can be paused", async () => {
  show();
  const recording = "The sample “Teddy bear” being dragged";
  expect(await screen.findByAltText(recording)).toBeTruthy();
  fireEvent.click(screen.getByRole("button", { name: "Pause animation" }));
  expect(screen.queryByAltText(recording)).toBeNull();
});

it("starts paused where less motion is preferred", async () => {
  vi.stubGlobal("matchMedia", () => ({ matches: true }));
  show();
  const button = await screen.findByRole("button", { name: "Pause animation" });
  expect(button.getAttribute("aria-pressed")).toBe("true");
});

it("generates a picture from a prompt, and names the model", async () => {
  show();
  expect(await screen.findByText(/Model: built-in\. Good for emoji and simple drawings\./)).toBeTruthy();
  const button = screen.getByRole("button", { name: "Generate" });
  expect(button.getAttribute("aria-disabled")).toBe("true");
  fireEvent.input(screen.getByRole("textbox", { name: "Prompt" }), { target: { value: "  a red apple " } });
  fireEvent.submit(screen.getByRole("form", { name: "New picture from words" }));
  expect(calls.generate).toHaveBeenCalledWith("a red apple");
});

it("shows a generation from the queue to the picture", async () => {
  const waiting = { ...requested("a red apple", null), id: "g1", phase: "waiting", ahead: 2, secondsLeft: 40 } as const;
  ongoing.value = waiting;
  show();
  const view = screen.getByTestId("generation");
  expect(view.textContent).toBe("Waiting in the queue 2 pictures ahead · 40 s left");
  expect(screen.getByRole("button", { name: "Cancel" })).toBeTruthy();
  ongoing.value = { ...waiting, phase: "generating", step: 10, steps: 50, secondsLeft: 12 };
  await vi.waitFor(() => expect(view.textContent).toBe("Generating 12 s left"));
  expect(screen.getByRole("progressbar").getAttribute("aria-valuenow")).toBe("20");
  const done = { ...waiting, phase: "done", seed: 7, picture: "blob:1" } as const;
  candidates.value = [done];
  ongoing.value = null;
  fireEvent.click(await screen.findByRole("button", { name: "Edit this picture" }));
  expect(calls.openGeneration).toHaveBeenCalledWith("g1");
  expect(view.textContent).toContain("“a red apple”, seed 7");
  fireEvent.click(screen.getByRole("button", { name: "3 more" }));
  expect(calls.generateMissing).toHaveBeenCalled();
});

it("says why a generation failed", async () => {
  ongoing.value = { ...requested("a frog", null), phase: "failed", message: "The device ran out of memory." };
  show();
  expect(screen.getByRole("alert").textContent).toBe("The device ran out of memory.");
  expect(screen.getByRole("button", { name: "Try again" })).toBeTruthy();
});
