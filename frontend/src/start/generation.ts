/**
 * Generating pictures from a prompt: several to choose from, one after the other, even while the page shows something
 * else. The finished ones are candidates, and the first of them is shown while the others follow.
 */

import { computed, signal } from "@preact/signals";
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

/** Pictures of a prompt, to choose from. */
export const MAX_CANDIDATES = 4;

/** The finished pictures of the prompt, oldest first. */
export const candidates = signal<readonly Generation[]>([]);
/** The one that is being generated, or that failed. */
export const ongoing = signal<Generation | null>(null);
/** How many are to be there in the end. */
export const wanted = signal(0);
const chosen = signal<string | null>(null);
/** What is shown: the chosen candidate, or the first; without any, what is being generated. */
export const generation = computed(() => {
  const { value } = candidates;
  return value.find(({ id }) => id === chosen.value) ?? value[0] ?? ongoing.value;
});

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

/** Generates candidates in place of those before. Throws only if the server requires its password first. */
export async function generate(prompt: string): Promise<void> {
  discardGeneration();
  await generateUpTo(MAX_CANDIDATES, prompt);
}

/** Generates the candidates of the prompt that are missing, or that failed. */
export async function generateMissing(): Promise<void> {
  const prompt = generation.value?.prompt;
  if (prompt !== undefined && !isUnderWay(ongoing.value)) await generateUpTo(MAX_CANDIDATES, prompt);
}

/** Shows another candidate. */
export function chooseCandidate({ id }: Generation): void {
  chosen.value = id;
}

/** Each with a new seed, until one fails or is cancelled. */
async function generateUpTo(count: number, prompt: string): Promise<void> {
  wanted.value = count;
  while (candidates.value.length < count) {
    const before = candidates.value.length;
    await generateOne(prompt);
    if (candidates.value.length <= before) return;
  }
}

async function generateOne(prompt: string): Promise<void> {
  const abort = new AbortController();
  following = abort;
  ongoing.value = requested(prompt, null);
  try {
    const accepted = await startGeneration(prompt, null);
    if (abort.signal.aborted) {
      await deleteGeneration(accepted.id);
      return;
    }
    ongoing.value = { ...requested(accepted.prompt, accepted.seed), id: accepted.id, phase: "waiting" };
    await follow(accepted.id, abort.signal);
  } catch (error) {
    if (abort.signal.aborted) return;
    if (error instanceof ApiError && error.reason === "password") {
      ongoing.value = null;
      throw error;
    }
    const before = ongoing.value ?? requested(prompt, null);
    ongoing.value = afterEvent(before, { type: "failed", message: messageOf(error) });
  }
}

/** Cancels what is being generated and what was to follow; the candidates before stay. */
export function cancelGeneration(): void {
  const before = ongoing.value;
  if (!isUnderWay(before)) return;
  following?.abort();
  following = null;
  ongoing.value = null;
  wanted.value = candidates.value.length;
  drop(before);
}

/** Cancels what is being generated, and discards all candidates. */
export function discardGeneration(): void {
  cancelGeneration();
  const dropped = [...candidates.value, ...(ongoing.value === null ? [] : [ongoing.value])];
  candidates.value = [];
  ongoing.value = null;
  chosen.value = null;
  for (const one of dropped) drop(one);
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
        if (signal.aborted || ongoing.value === null) return;
        const event = parseEvent(line);
        if (event === null) continue;
        failures = 0;
        if (event.type === "done") {
          await finish(id, signal);
          return;
        }
        ongoing.value = afterEvent(ongoing.value, event);
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
  if (signal.aborted || ongoing.value === null) return URL.revokeObjectURL(picture);
  const done = afterEvent({ ...ongoing.value, picture }, { type: "done" });
  ongoing.value = null;
  if (done !== null) candidates.value = [...candidates.value, done];
}
