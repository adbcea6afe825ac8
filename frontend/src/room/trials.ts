/** Trying variants of the settings: the same drags are run with each of them, one after the other. */

import { effect, signal } from "@preact/signals";
import { canReset, reset, setSettings } from "./actions.ts";
import { fetchPicture } from "./api.ts";
import { currentSession, sendRequest } from "./current-session.ts";
import type { Session } from "./current-session.ts";
import { messageOf } from "./http.ts";
import { makeId } from "./make-id.ts";
import type { Run } from "./protocol.ts";
import * as store from "./store.ts";
import { changesTo } from "./variants.ts";
import type { Variant } from "./variants.ts";

export interface Trial {
  /** Null: the result that was there before. */
  readonly variant: Variant | null;
  readonly state: "waiting" | "running" | "done" | "failed";
  readonly run: Run | null;
  /** A URL of the result; "" until there is one. */
  readonly picture: string;
  /** Of the content that is furthest from its target, in pixels; null if that is not known. */
  readonly left: number | null;
  readonly message: string;
}

/** Null while nothing is compared. */
export const trials = signal<readonly Trial[] | null>(null);

export function areUnderWay(list: readonly Trial[] | null): boolean {
  return list?.some(({ state }) => state === "waiting" || state === "running") ?? false;
}

export function canTry(): boolean {
  const idle = !store.running.value && !store.starting.value && store.drags.value.length > 0;
  return store.connected.value && store.editable.value && idle && !areUnderWay(trials.value);
}

/** Runs the drags with each variant, from the unedited picture on. Stop ends all of it. */
export async function tryVariants(variants: readonly Variant[]): Promise<void> {
  const session = currentSession();
  const document = store.document.value;
  if (session === null || document === null || !canTry()) return;
  discardTrials();
  const blank = { run: null, picture: "", left: null, message: "" };
  const waiting = variants.map((variant): Trial => ({ ...blank, variant, state: "waiting" }));
  const before = document.result && document.run?.outcome ? [await finished(session, null, document.run)] : [];
  if (currentSession() !== session) return;
  trials.value = [...before.filter(({ state }) => state === "done"), ...waiting];
  for (const variant of variants) {
    update(variant, { state: "running" });
    const changes = changesTo(store.document.value?.settings ?? {}, document.settings, variant.settings);
    if (Object.keys(changes).length > 0) setSettings(changes);
    if (canReset()) reset();
    const run = await runToItsEnd(session);
    if (currentSession() !== session || trials.value === null) return;
    update(variant, run === null ? { state: "failed" } : await finished(session, variant, run));
    if (run === null || run.outcome === "stopped" || run.interrupted) break;
  }
  // What Stop has spared is not tried.
  if (currentSession() === session) trials.value = trials.value?.filter(({ state }) => state !== "waiting") ?? null;
}

/** Makes a trial's result the room's, with its settings. */
export function keepTrial({ run }: Trial): void {
  if (run !== null && store.document.value?.result?.run !== run.id) {
    sendRequest({ type: "restore_run", op_id: makeId(), run: run.id });
  }
  discardTrials();
}

export function discardTrials(): void {
  for (const { picture } of trials.value ?? []) if (picture !== "") URL.revokeObjectURL(picture);
  trials.value = null;
}

function update(variant: Variant, changes: Partial<Trial>): void {
  trials.value = trials.value?.map((one) => (one.variant === variant ? { ...one, ...changes } : one)) ?? null;
}

/** Presses Drag and waits for the end; null if the server refuses, or the room is left. */
function runToItsEnd(session: Session): Promise<Run | null> {
  const op_id = makeId();
  const before = store.room.value.document?.run?.id;
  sendRequest({ type: "run", op_id });
  return new Promise((resolve) => {
    let stop: (() => void) | null = null;
    let ended: Run | null | undefined;
    const look = () => {
      const { pending, document } = store.room.value;
      if (currentSession() !== session) ended = null;
      else if (pending.some((request) => request.op_id === op_id)) return;
      else {
        const run = document?.run ?? null;
        if (run === null || run.id === before) ended = null;
        else if (run.outcome !== null || run.interrupted) ended = run;
        else return;
      }
      resolve(ended);
      // While the effect is being created there is nothing to stop yet.
      stop?.();
    };
    stop = effect(look);
    if (ended !== undefined) stop();
  });
}

async function finished(session: Session, variant: Variant | null, run: Run): Promise<Trial> {
  const drags = store.drags.value.map(({ distance, content, lost }) => (lost ? (content ?? distance) : distance));
  const trial = { variant, run, left: drags.length > 0 ? Math.max(...drags) : null };
  const result = store.room.value.document?.result;
  if (result?.run !== run.id) return { ...trial, state: "failed", picture: "", message: run.message ?? "" };
  try {
    const { blob } = await fetchPicture(session.key, "result");
    return { ...trial, state: "done", picture: URL.createObjectURL(blob), message: "" };
  } catch (error) {
    return { ...trial, state: "failed", picture: "", message: messageOf(error) };
  }
}
