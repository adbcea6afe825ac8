import { useEffect, useRef } from "preact/hooks";
import { toggleFlicker } from "../canvas/flicker.ts";
import { toggleSideBySide } from "../canvas/SideBySide.tsx";
import { toggleSplit } from "../canvas/Split.tsx";
import { canEditFurther, canReset, canRun, editFurther, reset, startRun, stopRun } from "../room/actions.ts";
import type { Stage } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { Bars } from "../ui/Bars.tsx";
import {
  CompareIcon,
  DrawIcon,
  FlickerIcon,
  PlayIcon,
  ResetIcon,
  SideBySideIcon,
  SplitIcon,
  StopIcon,
} from "../ui/icons.tsx";
import { Downloads } from "./Downloads.tsx";
import { isPreparing, runStatus } from "./run-status.ts";
import { texts } from "./texts.ts";

const labels = texts.dock;

/** The parts of a run that people wait for, and about how long each takes relative to the others. */
const PARTS: readonly (readonly [stage: Stage, share: number])[] = [
  ["fitting", 4],
  ["inverting", 1],
  ["dragging", 5],
  ["rendering", 1],
];

/** Milliseconds within which a second click on Drag is a double click and not Stop. */
const DOUBLE_CLICK = 400;

export function Dock() {
  const comparable = store.showing.value !== "original" || store.quickPreviewShown.value || store.comparing.value;
  return (
    <section class="dock" aria-label={labels.title}>
      <RunButton />
      <StageView />
      <div class="dock-actions">
        <CompareButton disabled={!comparable} />
        <button
          type="button"
          class="quiet-button"
          aria-label={labels.split}
          aria-pressed={store.splitShown.value !== null}
          title={labels.splitHelp}
          disabled={!comparable}
          onClick={toggleSplit}
        >
          <SplitIcon />
          <span>{labels.splitShort}</span>
        </button>
        <button
          type="button"
          class="quiet-button"
          aria-label={labels.sideBySide}
          aria-pressed={store.sideBySide.value}
          title={labels.sideBySideHelp}
          disabled={store.pictureNow.value === null}
          onClick={toggleSideBySide}
        >
          <SideBySideIcon />
        </button>
        <button
          type="button"
          class="quiet-button"
          aria-label={labels.flicker}
          aria-pressed={store.flickering.value}
          title={labels.flickerHelp}
          disabled={store.pictureNow.value === null}
          onClick={toggleFlicker}
        >
          <FlickerIcon />
        </button>
        {store.editable.value && (
          <button
            type="button"
            class="quiet-button"
            aria-label={labels.reset}
            title={labels.resetHelp}
            disabled={!canReset()}
            onClick={reset}
          >
            <ResetIcon />
            <span>{labels.reset}</span>
          </button>
        )}
        {store.editable.value && (
          <button
            type="button"
            class="quiet-button"
            aria-label={labels.further}
            title={labels.furtherHelp}
            disabled={!canEditFurther()}
            onClick={editFurther}
          >
            <DrawIcon />
            <span>{labels.furtherShort}</span>
          </button>
        )}
        <Downloads />
      </div>
    </section>
  );
}

/** Drag and Stop in one place, so that the focus stays on the button when it changes. */
function RunButton() {
  const pressed = useRef(0);
  if (!store.editable.value) return null;
  if (store.running.value) {
    return (
      <button
        key="run"
        type="button"
        class="run-button run-stop"
        title={labels.stopHelp}
        aria-disabled={store.stopping.value}
        onClick={() => performance.now() - pressed.current > DOUBLE_CLICK && stopRun()}
      >
        <StopIcon />
        {labels.stop}
      </button>
    );
  }
  return (
    <button
      key="run"
      type="button"
      class="run-button"
      title={labels.dragHelp}
      aria-disabled={!canRun()}
      onClick={() => {
        pressed.current = performance.now();
        startRun();
      }}
    >
      <PlayIcon />
      {labels.drag}
    </button>
  );
}

function StageView() {
  const { title, detail } = runStatus();
  const running = store.running.value;
  // Screen readers announce changes of state, not every step.
  const quiet = running || isPreparing(store.room.value.prepared);
  const stage = running ? (store.room.value.progress?.stage ?? "loading") : "idle";
  return (
    <div class="stage-view">
      <p
        class="stage-text"
        data-testid="stage"
        data-stage={stage}
        data-outcome={store.document.value?.run?.outcome ?? ""}
      >
        <strong>{title}</strong>
        {detail && <span title={detail}>{detail}</span>}
      </p>
      {running && <RunProgress />}
      <span class="visually-hidden" role="status">
        {title} {quiet ? "" : detail}
      </span>
    </div>
  );
}

function RunProgress() {
  const progress = store.room.value.progress;
  const index = PARTS.findIndex(([stage]) => stage === progress?.stage);
  const current = index < 0 ? null : index;
  return (
    <Bars
      label={progress ? texts.stages[progress.stage] : texts.status.starting}
      shares={PARTS.map(([, share]) => share)}
      current={current}
      done={progress && progress.steps > 0 && current !== null ? Math.min(1, progress.step / progress.steps) : null}
    />
  );
}

function CompareButton({ disabled }: { readonly disabled: boolean }) {
  const compare = () => (store.comparing.value = true);
  const stop = () => (store.comparing.value = false);
  useEffect(() => stop, []);
  return (
    <button
      type="button"
      class="quiet-button"
      disabled={disabled}
      aria-label={labels.compare}
      aria-pressed={store.comparing.value}
      title={labels.compareHelp}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        compare();
      }}
      onPointerUp={stop}
      onPointerCancel={stop}
      onContextMenu={(event) => event.preventDefault()}
      onKeyDown={(event) => {
        if (event.key !== " " && event.key !== "Enter") return;
        event.preventDefault();
        compare();
      }}
      onKeyUp={stop}
      onBlur={stop}
    >
      <CompareIcon />
      <span>{labels.compareShort}</span>
    </button>
  );
}
