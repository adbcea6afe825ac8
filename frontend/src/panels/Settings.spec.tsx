// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { oneDrag, openRoom, pendingRequests, runOf } from "../room/fixtures.ts";
import type { Document, ModelInfo } from "../room/protocol.ts";
import { SettingsSection } from "./Settings.tsx";

const model: ModelInfo = {
  name: "m",
  kind: "builtin",
  settings: { latent_lr: 0.01, lora_rank: 16, reference_control: true, warp_share: 1 },
  presets: ["official", "house"],
  ranges: { latent_lr: [0.0001, 1], lora_rank: [1, 128], warp_share: [0, 1] },
  live: ["latent_lr", "warp_share"],
  words: {},
  choices: {},
  unsuitable: {},
};

function show(document: Document = oneDrag): void {
  openRoom(document, { model });
  render(<SettingsSection />);
}

beforeAll(async () => {
  // The advanced settings are loaded when they are first mounted.
  show();
  await screen.findByLabelText(/^Step size/, undefined, { timeout: 30_000 });
  cleanup();
}, 40_000);
beforeEach(() => openRoom());
afterEach(cleanup);

const input = (name: RegExp) => screen.getByLabelText<HTMLInputElement>(name);

it("shows the settings that the model has, with their ranges, symbols and help", () => {
  show();
  const size = input(/^Step size/);
  expect([size.value, size.min, size.max, size.step]).toEqual(["0.01", "0.0001", "1", "any"]);
  expect(input(/^LoRA rank/).step).toBe("1");
  expect(screen.getByTitle("η in the paper")).toBeTruthy();
  const help = document.getElementById(size.getAttribute("aria-describedby") ?? "");
  expect(help?.textContent).toContain("per iteration");
  expect(screen.queryByLabelText(/^Mask weight/)).toBeNull();
});

it("sends what is typed when it is committed, and nothing before", () => {
  show();
  const size = input(/^Step size/);
  fireEvent.input(size, { target: { value: "0.02" } });
  expect(pendingRequests()).toEqual([]);
  fireEvent.change(size);
  expect(pendingRequests()).toMatchObject([{ op: { type: "set_settings", settings: { latent_lr: 0.02 } } }]);
});

it("goes back to the default when a number is cleared", () => {
  show({ ...oneDrag, settings: { latent_lr: 0.5 } });
  fireEvent.input(input(/^Step size/), { target: { value: "" } });
  fireEvent.change(input(/^Step size/));
  expect(pendingRequests()).toMatchObject([{ op: { settings: { latent_lr: null } } }]);
});

it("switches booleans", () => {
  show();
  fireEvent.click(input(/^Reference control/));
  expect(pendingRequests()).toMatchObject([{ op: { settings: { reference_control: false } } }]);
});

it("resets one setting", () => {
  show({ ...oneDrag, settings: { latent_lr: 0.5, preset: "official" } });
  expect(screen.queryByRole("button", { name: "Reset LoRA rank to its default" })).toBeNull();
  fireEvent.click(screen.getByRole("button", { name: "Reset Step size to its default" }));
  expect(pendingRequests()).toMatchObject([{ op: { settings: { latent_lr: null } } }]);
});

it("resets all settings, the preset too", () => {
  show({ ...oneDrag, settings: { latent_lr: 0.5, preset: "official" } });
  fireEvent.click(screen.getByRole("button", { name: "Reset all" }));
  expect(pendingRequests()).toMatchObject([{ op: { settings: { latent_lr: null, preset: null } } }]);
});

it("chooses presets, known ones by their name", () => {
  show({ ...oneDrag, settings: { preset: "official" } });
  const presets = screen.getAllByRole<HTMLInputElement>("radio");
  expect(presets.map((radio) => radio.closest("label")?.querySelector("strong")?.textContent)).toEqual([
    "Model default",
    "Official",
    "house",
  ]);
  expect(presets.map(({ checked }) => checked)).toEqual([false, true, false]);
  const [first] = presets;
  if (first) fireEvent.click(first);
  expect(pendingRequests()).toMatchObject([{ op: { settings: { preset: null } } }]);
});

it("locks what cannot change during a run", () => {
  show({ ...oneDrag, run: runOf(), settings: { lora_rank: 8 } });
  expect(screen.getByText("Some settings can be changed only when the run has ended.")).toBeTruthy();
  expect(input(/^Step size/).disabled).toBe(false);
  expect(input(/^Warp first/).disabled).toBe(false);
  expect(input(/^LoRA rank/).disabled).toBe(true);
  expect(screen.getByRole<HTMLButtonElement>("button", { name: "Reset all" }).disabled).toBe(true);
  expect(screen.getAllByRole<HTMLInputElement>("radio").every(({ disabled }) => disabled)).toBe(true);
});

it("is hidden from viewers", () => {
  openRoom(oneDrag, { model, role: "viewer" });
  const { container } = render(<SettingsSection />);
  expect(container.textContent).toBe("");
});

it("marks presets that do not suit the model, with the reason", () => {
  openRoom(oneDrag, { model: { ...model, unsuitable: { official: "it loses the picture" } } });
  render(<SettingsSection />);
  expect(screen.getByLabelText(/^Official/).closest("label")?.textContent).toContain(
    "Doesn’t suit this model: it loses the picture.",
  );
  expect(screen.getByLabelText(/^house/).closest("label")?.textContent).not.toContain("Doesn’t suit");
});
