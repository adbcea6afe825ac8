import { expect, it } from "vitest";
import { model } from "./fixtures.ts";
import { changesTo, variantsOf } from "./variants.ts";

const known = {
  ...model,
  settings: { supervision: "points", latent_lr: 0.02, seed: 7, max_iterations: 80 },
  presets: ["official", "gooddrag"],
  ranges: { latent_lr: [1e-6, 0.05], max_iterations: [1, 100] },
  unsuitable: { gooddrag: "it adds too much noise" },
} as const;

it("offers what the model has, but no preset that ruins pictures on it", () => {
  expect(variantsOf(known, {}).map(({ settings }) => settings)).toEqual([
    { supervision: "region" },
    { latent_lr: 0.04 },
    { preset: "official" },
    { seed: 8 },
    { seed: 9 },
  ]);
  expect(variantsOf(model, {})).toEqual([]);
});

it("offers what differs from the room's own settings", () => {
  const offered = variantsOf(known, { supervision: "region", latent_lr: 0.04, preset: "official", max_iterations: 40 });
  expect(offered.map(({ settings }) => settings)).toEqual([
    { supervision: "points" },
    { preset: null },
    { seed: 8 },
    { seed: 9 },
    { max_iterations: 80 },
  ]);
});

it("leads from one variant's settings to another's", () => {
  expect(changesTo({ seed: 8, feather: 1 }, { feather: 1 }, { preset: "official" })).toEqual({
    seed: null,
    preset: "official",
  });
  expect(changesTo({ feather: 1 }, { feather: 1 }, {})).toEqual({});
  expect(changesTo({ preset: "official" }, { preset: "official" }, { preset: null })).toEqual({ preset: null });
});
