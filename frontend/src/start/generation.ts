/**
 * Generating pictures from a prompt: one at a time on this page, even while the page shows something else. The finished
 * ones of a prompt are candidates, of which one is shown.
 */

import { signal } from "@preact/signals";
import { ApiError, messageOf } from "../room/http.ts";
import { deleteGeneration, fetchGeneration, followGeneration, startGeneration } from "./api.ts";
import { readLines } from "./read-lines.ts";
import { texts } from "./texts.ts";

/** What the server reports; the last three are final. */
export type GenerationEvent =
  | { readonly type: "waiting"; readonly before: number; readonly seconds_left: number | null }
  | {
      readonly type: "progress";
      readonly step: number;
      readonly steps: number;
      readonly seconds_left: number | null;
    }
  | { readonly type: "preview"; readonly picture: string }
  | { readonly type: "done" }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "cancelled" };

export type GenerationPhase = "requested" | "waiting" | "generating" | "done" | "failed";

export interface Generation {
  /** Null until the server has accepted it. */
  readonly id: string | null;
  readonly prompt: string;
  /** Null until the server has chosen one. */
  readonly seed: number | null;
  readonly phase: GenerationPhase;
  /** How many others go first. */
  readonly ahead: number;
  readonly step: number;
  readonly steps: number;
  readonly secondsLeft: number | null;
  /** The URL of the picture, or of its newest preview. */
  readonly picture: string | null;
  readonly message: string;
}

const EVENT_TYPES: ReadonlySet<string> = new Set<GenerationEvent["type"]>([
  "waiting",
  "progress",
  "preview",
  "done",
  "failed",
  "cancelled",
]);

/** Milliseconds before each reconnect in a row. */
const RETRY_DELAYS = [500, 1000, 2000, 4000, 8000];

export const generation = signal<Generation | null>(null);
/** The finished pictures of the prompt, oldest first. */
export const candidates = signal<readonly Generation[]>([]);

let following: AbortController | null = null;

export function requested(prompt: string, seed: number | null): Generation {
  return {
    id: null,
    prompt,
    seed,
    phase: "requested",
    ahead: 0,
    step: 0,
    steps: 0,
    secondsLeft: null,
    picture: null,
    message: "",
  };
}

/** The generation after an event; null once it is cancelled. */
export function afterEvent(now: Generation, event: GenerationEvent): Generation | null {
  switch (event.type) {
    case "waiting":
      return { ...now, phase: "waiting", ahead: event.before, secondsLeft: event.seconds_left };
    case "progress":
      return {
        ...now,
        phase: "generating",
        step: event.step,
        steps: event.steps,
        secondsLeft: event.seconds_left,
      };
    case "preview":
      return { ...now, phase: "generating", picture: event.picture };
    case "done":
      return { ...now, phase: "done", secondsLeft: null };
    case "failed":
      return { ...now, phase: "failed", picture: null, message: event.message };
    case "cancelled":
      return null;
  }
}

/** Null for events of a newer server, which this page ignores. */
export function parseEvent(line: string): GenerationEvent | null {
  const event = JSON.parse(line) as GenerationEvent;
  return EVENT_TYPES.has(event.type) ? event : null;
}

export function isUnderWay(now: Generation | null): now is Generation {
  return now !== null && now.phase !== "done" && now.phase !== "failed";
}

/** Generates a picture in place of those before. Throws only if the server requires its password first. */
export async function generate(prompt: string, seed: number | null = null): Promise<void> {
  discardGeneration();
  await generateOne(prompt, seed);
}

/** Generates more candidates of the shown prompt, each with a new seed; until one fails or is cancelled. */
export async function generateMore(count: number): Promise<void> {
  const prompt = generation.value?.prompt;
  for (let made = 0; prompt !== undefined && made < count; made++) {
    const before = candidates.value.length;
    await generateOne(prompt, null);
    if (candidates.value.length === before) return;
  }
}

/** Shows another candidate. */
export function chooseCandidate(candidate: Generation): void {
  if (!isUnderWay(generation.value)) generation.value = candidate;
}

async function generateOne(prompt: string, seed: number | null): Promise<void> {
  const abort = new AbortController();
  following = abort;
  generation.value = requested(prompt, seed);
  try {
    const accepted = await startGeneration(prompt, seed);
    if (abort.signal.aborted) {
      await deleteGeneration(accepted.id);
      return;
    }
    generation.value = { ...requested(accepted.prompt, accepted.seed), id: accepted.id, phase: "waiting" };
    await follow(accepted.id, abort.signal);
  } catch (error) {
    if (abort.signal.aborted) return;
    if (error instanceof ApiError && error.reason === "password") {
      generation.value = null;
      throw error;
    }
    const before = generation.value ?? requested(prompt, seed);
    generation.value = afterEvent(before, { type: "failed", message: messageOf(error) });
  }
}

/** Cancels what is being generated; the candidates before it stay. */
export function cancelGeneration(): void {
  const before = generation.value;
  if (!isUnderWay(before)) return;
  following?.abort();
  following = null;
  generation.value = candidates.value.at(-1) ?? null;
  drop(before);
}

/** Cancels what is being generated, and discards all candidates. */
export function discardGeneration(): void {
  cancelGeneration();
  if (generation.value?.phase === "failed") drop(generation.value);
  const { value } = candidates;
  candidates.value = [];
  generation.value = null;
  for (const candidate of value) drop(candidate);
}

function drop({ id, picture }: Generation): void {
  if (picture?.startsWith("blob:")) URL.revokeObjectURL(picture);
  // The server deletes by itself what it can't be asked to delete now.
  if (id) void deleteGeneration(id).catch(() => undefined);
}

/** Follows a generation to its end, reconnecting when the stream breaks off. */
async function follow(id: string, signal: AbortSignal): Promise<void> {
  for (let failures = 0; ; failures++) {
    try {
      for await (const line of readLines(await followGeneration(id, signal))) {
        if (signal.aborted || generation.value === null) return;
        const event = parseEvent(line);
        if (event === null) continue;
        failures = 0;
        if (event.type === "done") {
          await finish(id, signal);
          return;
        }
        generation.value = afterEvent(generation.value, event);
        if (event.type === "failed" || event.type === "cancelled") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // The server would answer the same again.
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) throw error;
    }
    const delay = RETRY_DELAYS[failures];
    if (delay === undefined) throw new Error(texts.generation.disconnected);
    await new Promise((done) => setTimeout(done, delay));
    if (signal.aborted) return;
  }
}

/** Fetches the finished picture, which the server keeps for a limited time only. */
async function finish(id: string, signal: AbortSignal): Promise<void> {
  const picture = URL.createObjectURL(await fetchGeneration(id));
  if (signal.aborted || generation.value === null) return URL.revokeObjectURL(picture);
  const done = afterEvent({ ...generation.value, picture }, { type: "done" });
  generation.value = done;
  if (done !== null) candidates.value = [...candidates.value, done];
}
