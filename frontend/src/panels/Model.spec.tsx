// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { model, openRoom } from "../room/fixtures.ts";
import type { Prepared } from "../room/protocol.ts";
import { receive } from "../room/room.ts";
import * as store from "../room/store.ts";
import { ModelCard, UnknownPictureNote } from "./Model.tsx";
import { ModelPicker } from "./ModelPicker.tsx";

beforeEach(() => openRoom());
afterEach(cleanup);

function prepared(stage: Prepared["stage"], unknown: boolean): void {
  const message: Prepared = {
    type: "prepared",
    stage,
    step: 1,
    steps: 1,
    seconds_left: null,
    ignored_prompt: "",
    unknown,
  };
  store.room.value = receive(store.room.value, message);
  cleanup();
  render(<UnknownPictureNote />);
}

const note = () => screen.queryByTestId("unknown-note");

it("says that the model does not know the picture, once it is prepared", () => {
  prepared("fitting", false);
  expect(note()).toBeNull();
  prepared("ready", true);
  expect(note()?.textContent).toContain("doesn’t know pictures like this one");
  prepared("fitting", false); // again, for another prompt
  expect(note()).not.toBeNull();
  prepared("ready", false);
  expect(note()).toBeNull();
});

it("can be dismissed, and is not shown to people who only look", () => {
  prepared("ready", true);
  fireEvent.click(screen.getByRole("button", { name: "Got it" }));
  expect(note()).toBeNull();
  store.room.value = { ...store.room.value, role: "viewer" };
  prepared("ready", true);
  expect(note()).toBeNull();
});

const entry = { architecture: "", bytes: 0, problem: "", info: null, needs_vae: false } as const;
const entries = [
  { ...entry, name: "builtin", kind: "model", info: model },
  {
    ...entry,
    name: "dream.safetensors",
    kind: "model",
    architecture: "Stable Diffusion 1.x",
    bytes: 2.1e9,
    info: { ...model, kind: "stable-diffusion" },
  },
  { ...entry, name: "ink.safetensors", kind: "lora" },
  { ...entry, name: "old.ckpt", kind: "other", problem: "not opened: convert it" },
];

it("lists the models with what they are good for, and asks the room to change", async () => {
  const answer = new Response(JSON.stringify({ default: "built-in", entries }));
  vi.stubGlobal("fetch", vi.fn().mockResolvedValue(answer));
  const onClose = vi.fn();
  render(<ModelPicker onClose={onClose} />);
  const dream = await screen.findByText("dream.safetensors");
  expect(dream.parentElement?.textContent).toContain("Stable Diffusion 1.x · 2.1 GB · for photos");
  expect(screen.getByText(/old.ckpt: not opened/)).toBeTruthy();
  fireEvent.click(dream.closest("label")?.querySelector("input") as HTMLInputElement);
  fireEvent.click(screen.getByText("ink.safetensors").closest("label")?.querySelector("input") as HTMLInputElement);
  fireEvent.change(screen.getByLabelText("Weight of ink.safetensors"), { target: { value: "0.5" } });
  fireEvent.submit(screen.getByTestId("model-picker"));
  expect(onClose).toHaveBeenCalled();
  const chosen = { name: "dream.safetensors", loras: [{ name: "ink.safetensors", weight: 0.5 }], vae: "" };
  expect(store.room.value.pending.map((request) => ("op" in request ? request.op : request))).toEqual([
    { type: "set_model", model: chosen },
  ]);
  cleanup();
  render(<ModelCard />);
  expect(screen.getByTestId("model").textContent).toContain("ink.safetensors 0.5");
  vi.unstubAllGlobals();
});

it("asks for an autoencoder if the model has none", async () => {
  const bare = { ...entry, name: "bare.safetensors", kind: "model", info: model, needs_vae: true };
  const listed = [...entries, bare, { ...entry, name: "ft.safetensors", kind: "vae" }];
  vi.stubGlobal(
    "fetch",
    vi.fn().mockResolvedValue(new Response(JSON.stringify({ default: "built-in", entries: listed }))),
  );
  render(<ModelPicker onClose={() => undefined} />);
  const option = await screen.findByText("bare.safetensors");
  expect(option.parentElement?.textContent).toContain("needs a VAE");
  const vae = screen.getByLabelText<HTMLSelectElement>("Autoencoder (VAE)");
  expect(vae.required).toBe(false);
  fireEvent.click(option.closest("label")?.querySelector("input") as HTMLInputElement);
  expect(vae.required).toBe(true);
  expect(vae.options[0]?.textContent).toBe("Choose one: this model has none");
  vi.unstubAllGlobals();
});
