/** Other settings for the same drags, to try beside each other; pure. */

import type { ModelInfo, Setting } from "./protocol.ts";

export type Changes = Readonly<Record<string, Setting | null>>;

export interface Variant {
  readonly id: string;
  /** What it is, and its preset or its number. */
  readonly kind: "preset" | "seed" | "region" | "points" | "larger_steps" | "more_iterations";
  readonly value: string;
  /** What differs from the room's settings; null is the default. */
  readonly settings: Changes;
}

/** At once: each is a run of its own. */
export const MAX_VARIANTS = 3;

/** What may help a drag that did not follow, the most promising first. Only what the model has, and no preset that ruins pictures on it. */
export function variantsOf(model: ModelInfo, settings: Readonly<Record<string, Setting>>): readonly Variant[] {
  const now = (name: string) => settings[name] ?? model.settings[name];
  const preset = String(settings.preset ?? "");
  const has = (name: string) => model.settings[name] !== undefined;
  const variants: Variant[] = [];
  const add = (kind: Variant["kind"], value: string, changes: Changes) =>
    variants.push({ id: `${kind} ${value}`, kind, value, settings: changes });
  if (has("supervision")) {
    const other = now("supervision") === "region" ? "points" : "region";
    add(other, "", { supervision: other });
  }
  const step = Number(now("latent_lr"));
  const largest = model.ranges.latent_lr?.[1] ?? Infinity;
  if (has("latent_lr") && 2 * step <= largest) add("larger_steps", "", { latent_lr: 2 * step });
  for (const name of ["", ...model.presets]) {
    if (name !== preset && model.unsuitable[name] === undefined) add("preset", name, { preset: name || null });
  }
  const seed = Number(now("seed") ?? 0);
  if (has("seed")) for (const next of [seed + 1, seed + 2]) add("seed", String(next), { seed: next });
  const iterations = Number(now("max_iterations"));
  const most = model.ranges.max_iterations?.[1] ?? 0;
  if (has("max_iterations") && 2 * iterations <= most) {
    add("more_iterations", String(2 * iterations), { max_iterations: 2 * iterations });
  }
  return variants;
}

/** What leads from the settings of `now` to those of `base` with `changes`; empty if nothing differs. */
export function changesTo(
  now: Readonly<Record<string, Setting>>,
  base: Readonly<Record<string, Setting>>,
  changes: Changes,
): Changes {
  const wanted: Record<string, Setting | null> = { ...base, ...changes };
  const names = new Set([...Object.keys(now), ...Object.keys(wanted)]);
  return Object.fromEntries(
    [...names]
      .map((name) => [name, wanted[name] ?? null] as const)
      .filter(([name, value]) => value !== (now[name] ?? null)),
  );
}
