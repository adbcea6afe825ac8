import { useEffect, useRef } from "preact/hooks";
import type { Keepsake } from "../api.ts";
import type { Prepared, Stage } from "../protocol.ts";
import { lastEnd } from "../room.ts";
import { canReset, canRun, download, reset, startRun, stopRun } from "../session.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { Menu, MenuItem } from "./Menu.tsx";
import { CompareIcon, DownloadIcon, PlayIcon, ResetIcon, SplitIcon, StopIcon } from "./icons.tsx";
import { toggleSplit } from "./Split.tsx";

/** The parts of a run that a person waits for, in order, and about how much of the wait each is. */
const PARTS: readonly (readonly [stage: Stage, share: number])[] = [
  ["fitting", 4],
  ["inverting", 1],
  ["dragging", 5],
  ["rendering", 1],
];

/** Milliseconds during which a second click on Drag is a double click and no Stop. */
const DOUBLE_CLICK = 400;

export function Dock() {
  const comparable = store.showing.value !== "original" || store.guessing.value || store.comparing.value;
  return (
    <section class="dock" aria-label={texts.editor.actions}>
      <RunButton />
      <StageView />
      <div class="dock-actions">
        <CompareButton disabled={!comparable} />
        <button
          type="button"
          class="quiet-button"
          aria-label={texts.editor.split}
          aria-pressed={store.splitShown.value !== null}
          title={texts.editor.splitHelp}
          disabled={!comparable}
          onClick={toggleSplit}
        >
          <SplitIcon />
          <span>{texts.editor.splitShort}</span>
        </button>
        {store.editable.value && (
          <button
            type="button"
            class="quiet-button"
            aria-label={texts.editor.reset}
            title={texts.editor.resetHelp}
            disabled={!canReset()}
            onClick={reset}
          >
            <ResetIcon />
            <span>{texts.editor.reset}</span>
          </button>
        )}
        <Downloads />
      </div>
    </section>
  );
}

function Downloads() {
  const items: Keepsake[] = [];
  if (store.document.value?.result) items.push("result");
  if (store.room.value.moments.length > 1) items.push("trajectory.webp");
  if (store.room.value.moments.length > 1 && store.room.value.capabilities.includes("mp4"))
    items.push("trajectory.mp4");
  if (store.editable.value) items.push("export");
  if (items.length === 0) return null;
  return (
    <Menu
      name={texts.download.title}
      text={texts.download.title}
      icon={<DownloadIcon />}
      class="menu-above"
      testId="download"
    >
      {items.map((which) => {
        const [name, help] = texts.download.items[which];
        return (
          <MenuItem key={which} onClick={() => void download(which)}>
            <span>
              {name} <small>{help}</small>
            </span>
          </MenuItem>
        );
      })}
    </Menu>
  );
}

/** Drag and Stop in one place, so that the focus stays on it whichever it is. */
function RunButton() {
  const pressed = useRef(0);
  const running = store.running.value;
  if (!store.editable.value) return null;
  if (running) {
    return (
      <button
        key="run"
        type="button"
        class="run-button run-stop"
        aria-disabled={store.stopping.value}
        onClick={() => performance.now() - pressed.current > DOUBLE_CLICK && stopRun()}
      >
        <StopIcon />
        {texts.editor.stop}
      </button>
    );
  }
  return (
    <button
      key="run"
      type="button"
      class="run-button"
      aria-disabled={!canRun()}
      onClick={() => {
        pressed.current = performance.now();
        startRun();
      }}
    >
      <PlayIcon />
      {texts.editor.drag}
    </button>
  );
}

function StageView() {
  const { title, detail } = wordsOf();
  // Progress is shown, and not read out step by step.
  const quiet = store.running.value || isPreparing(store.room.value.prepared);
  const stage = store.running.value ? (store.room.value.progress?.stage ?? "loading") : "idle";
  return (
    <div class="stage-view">
      <p
        class="stage-words"
        data-testid="stage"
        data-stage={stage}
        data-outcome={store.document.value?.run?.outcome ?? ""}
      >
        <strong>{title}</strong>
        {detail && <span title={detail}>{detail}</span>}
      </p>
      {store.running.value && <Bars />}
      <Spoken words={title} detail={quiet ? "" : detail} />
    </div>
  );
}

/** Says state changes to screen readers, and not every iteration. */
function Spoken({ words, detail }: { readonly words: string; readonly detail: string }) {
  return (
    <span class="visually-hidden" role="status">
      {words} {detail}
    </span>
  );
}

function wordsOf(): { readonly title: string; readonly detail: string } {
  const { stage, stages, outcomes, outcomeHelp } = texts;
  const now = store.document.value;
  if (store.connection.value.state === "lost") {
    return { title: stage.offline, detail: store.running.value ? stage.offlineRunning : "" };
  }
  if (store.room.value.engine !== "ready") return { title: texts.engine.short, detail: texts.engine.restarting };
  if (store.starting.value) return { title: stage.starting, detail: "" };
  const progress = store.room.value.progress;
  if (store.running.value) {
    if (progress === null) return { title: store.stopping.value ? stage.stopping : stages.loading, detail: "" };
    // What was left of the run says nothing about how soon it stops.
    if (store.stopping.value && progress.stage !== "rendering") return { title: stage.stopping, detail: "" };
    const title = stages[progress.stage];
    const parts: string[] = [];
    if (progress.stage === "queued") parts.push(stage.ahead(progress.step));
    else if (progress.stage === "dragging")
      parts.push(stage.iteration(Math.max(progress.step, store.room.value.iteration), progress.steps));
    else if (progress.steps > 1) parts.push(stage.steps(progress.step, progress.steps));
    // One step is no pace to reckon by.
    if (progress.seconds_left !== null && progress.step > 1) parts.push(stage.left(progress.seconds_left));
    return { title, detail: parts.join(" · ") };
  }
  const end = lastEnd(now);
  if (end?.interrupted) return { title: stage.interrupted, detail: stage.interruptedHelp };
  if (end?.outcome)
    return { title: outcomes[end.outcome], detail: outcomeHelp[end.outcome](end.iterations, end.message) };
  if (!store.editable.value) return { title: texts.people.viewing, detail: texts.people.viewingHelp };
  if (store.drags.value.length === 0) return { title: stage.needsPoints, detail: stage.needsPointsHelp };
  const prepared = store.room.value.prepared;
  if (isPreparing(prepared)) {
    const parts = [stage.steps(prepared.step, prepared.steps)];
    if (prepared.seconds_left !== null && prepared.step > 1) parts.push(stage.left(prepared.seconds_left));
    return {
      title: stage.ready,
      detail: `${stage.readyHelp} · ${texts.prepared[prepared.stage]} ${parts.join(" · ")}`,
    };
  }
  return { title: stage.ready, detail: stage.readyHelp };
}

/** Whether there is something to tell of the preparation. */
function isPreparing(
  prepared: Prepared | null,
): prepared is Prepared & { readonly stage: "drawing" | "fitting" | "inverting" } {
  return prepared !== null && prepared.stage !== "ready" && prepared.stage !== "failed";
}

function Bars() {
  const progress = store.room.value.progress;
  const at = PARTS.findIndex(([stage]) => stage === progress?.stage);
  const done = progress && progress.steps > 0 && at >= 0 ? Math.min(1, progress.step / progress.steps) : null;
  return (
    <div
      class={`bars ${at < 0 ? "bars-waiting" : ""}`}
      role="progressbar"
      aria-label={progress ? texts.stages[progress.stage] : texts.stage.starting}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(done === null ? {} : { "aria-valuenow": Math.round(done * 100) })}
    >
      {PARTS.map(([stage, share], index) => (
        <span key={stage} style={{ flexGrow: share }}>
          <i style={{ transform: `scaleX(${index < at ? 1 : index === at ? (done ?? 0) : 0})` }} />
        </span>
      ))}
    </div>
  );
}

function CompareButton({ disabled }: { readonly disabled: boolean }) {
  const hold = () => (store.comparing.value = true);
  const letGo = () => (store.comparing.value = false);
  useEffect(() => letGo, []);
  return (
    <button
      type="button"
      class="quiet-button"
      disabled={disabled}
      aria-label={texts.editor.compare}
      aria-pressed={store.comparing.value}
      title={texts.editor.compareHelp}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        hold();
      }}
      onPointerUp={letGo}
      onPointerCancel={letGo}
      onContextMenu={(event) => event.preventDefault()}
      onKeyDown={(event) => {
        if (event.key !== " " && event.key !== "Enter") return;
        event.preventDefault();
        hold();
      }}
      onKeyUp={letGo}
      onBlur={letGo}
    >
      <CompareIcon />
      <span>{texts.editor.compareShort}</span>
    </button>
  );
}
