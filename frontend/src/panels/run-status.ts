/** What the dock says about the run, from the store. */

import { endedRun } from "../room/document.ts";
import type { Prepared, Progress } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { texts as ui } from "../ui/texts.ts";
import { texts } from "./texts.ts";

export interface RunStatus {
  readonly title: string;
  readonly detail: string;
}

type Preparing = Prepared & { readonly stage: keyof typeof texts.prepared };

const labels = texts.status;

export function runStatus(): RunStatus {
  if (store.connection.value.state === "lost") {
    return { title: labels.offline, detail: store.running.value ? labels.offlineRunning : "" };
  }
  if (store.room.value.engine !== "ready") {
    return { title: labels.engineRestarting, detail: labels.engineRestartingHelp };
  }
  if (store.starting.value) return { title: labels.starting, detail: "" };
  return store.running.value ? runningStatus(store.room.value.progress) : idleStatus();
}

export function isPreparing(prepared: Prepared | null): prepared is Preparing {
  return prepared !== null && prepared.stage in texts.prepared;
}

function runningStatus(progress: Progress | null): RunStatus {
  if (store.stopping.value && progress?.stage !== "rendering") return { title: labels.stopping, detail: "" };
  if (progress === null) return { title: texts.stages.loading, detail: "" };
  return { title: texts.stages[progress.stage], detail: joined([stepOf(progress), timeLeftOf(progress)]) };
}

function idleStatus(): RunStatus {
  const run = endedRun(store.document.value);
  if (run?.interrupted) return { title: labels.interrupted, detail: labels.interruptedHelp };
  if (run?.outcome) {
    const [title, detail] = texts.outcomes[run.outcome];
    return { title, detail: detail(run.iterations, run.message) };
  }
  if (!store.editable.value) return { title: labels.viewOnly, detail: labels.viewOnlyHelp };
  if (store.drags.value.length === 0) return { title: labels.noPoints, detail: labels.noPointsHelp };
  return { title: labels.ready, detail: joined([labels.readyHelp, preparationOf(store.room.value.prepared)]) };
}

function preparationOf(prepared: Prepared | null): string {
  if (!isPreparing(prepared)) return "";
  const step = `${texts.prepared[prepared.stage]} ${labels.steps(prepared.step, prepared.steps)}`;
  return joined([step, timeLeftOf(prepared)]);
}

function stepOf({ stage, step, steps }: Progress): string {
  if (stage === "queued") return labels.ahead(step);
  if (stage === "dragging") return labels.iteration(Math.max(step, store.room.value.iteration), steps);
  return steps > 1 ? labels.steps(step, steps) : "";
}

/** A single step is too little for an estimate. */
function timeLeftOf({ step, seconds_left }: Pick<Progress, "step" | "seconds_left">): string {
  return seconds_left === null || step <= 1 ? "" : ui.timeLeft(seconds_left);
}

function joined(parts: readonly string[]): string {
  return parts.filter(Boolean).join(" · ");
}
