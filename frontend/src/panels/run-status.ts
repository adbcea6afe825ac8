/** What the dock says about the run, from the store. */

import { endedRun } from "../room/document.ts";
import type { Prepared, Progress } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { texts as ui } from "../ui/texts.ts";
import { isTouch } from "../ui/touch.ts";
import { texts } from "./texts.ts";

export interface RunStatus {
  readonly title: string;
  readonly detail: string;
}

type Preparing = Prepared & { readonly stage: keyof typeof texts.prepared };

const labels = texts.status;

/** Steps before the time left is shown. */
const FIRST_ESTIMATE = 5;

export function runStatus(): RunStatus {
  const connection = store.connection.value;
  if (connection.state === "lost" && connection.serverStopped) {
    return { title: labels.serverStopped, detail: store.running.value ? labels.serverStoppedRunning : "" };
  }
  if (connection.state === "lost") {
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
  if (run?.outcome !== "failed" && store.outsideDrags.value.length > 0) return outsideStatus(store.outsideDrags.value);
  // Points may have been added or moved since, or an earlier step was returned to.
  if (run?.outcome === "arrived" && store.unreachedDrags.value.length > 0) {
    return unreachedStatus(store.unreachedDrags.value);
  }
  if (run?.outcome) {
    const [title, detail] = texts.outcomes[run.outcome];
    return { title, detail: detail(run.iterations, run.message, totalIterations()) };
  }
  if (!store.editable.value) return { title: labels.viewOnly, detail: labels.viewOnlyHelp };
  if (store.drags.value.length === 0) {
    return { title: labels.noPoints, detail: isTouch() ? labels.noPointsTouch : labels.noPointsHelp };
  }
  return { title: labels.ready, detail: joined([labels.readyHelp, preparationOf(store.room.value.prepared)]) };
}

/** Iterations from the unedited picture to the one that the last run ended at; 0 if it is not known. */
function totalIterations(): number {
  const end = store.document.value?.result?.moment;
  return store.room.value.moments.find(({ id }) => id === end)?.iteration ?? 0;
}

function outsideStatus(drags: readonly store.ShownDrag[]): RunStatus {
  const [first] = drags;
  const title = drags.length === 1 && first ? labels.outside(first.number) : labels.severalOutside(drags.length);
  return { title, detail: labels.outsideHelp };
}

function unreachedStatus(drags: readonly store.ShownDrag[]): RunStatus {
  const [first] = drags;
  const title =
    drags.length === 1 && first
      ? labels.unreached(first.number, first.distance)
      : labels.severalUnreached(drags.length);
  return { title, detail: store.editable.value ? labels.unreachedHelp : "" };
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

/** The first steps are too little for an estimate, and half of the way is not "nearly done" however fast it goes. */
function timeLeftOf({ step, steps, seconds_left }: Pick<Progress, "step" | "steps" | "seconds_left">): string {
  const started = step >= Math.min(FIRST_ESTIMATE, steps);
  if (seconds_left === null || !started || (seconds_left < 1 && step < steps / 2)) return "";
  return ui.timeLeft(seconds_left);
}

function joined(parts: readonly string[]): string {
  return parts.filter(Boolean).join(" · ");
}
