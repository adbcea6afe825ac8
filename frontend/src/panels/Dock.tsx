import type { ComponentProps } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { stopFlicker, toggleFlicker } from "../canvas/flicker.ts";
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
  MoreIcon,
  PlayIcon,
  ResetIcon,
  SideBySideIcon,
  SplitIcon,
  StopIcon,
} from "../ui/icons.tsx";
import { Menu, MenuItem } from "../ui/Menu.tsx";
import { DockButton } from "./DockButton.tsx";
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
  // The flicker ends with its room.
  useEffect(() => () => void stopFlicker(), []);
  const comparable = store.showing.value !== "original" || store.quickPreviewShown.value || store.comparing.value;
  const actions = rareActions();
  return (
    <section class="dock" aria-label={labels.title}>
      <RunButton />
      <StageView />
      <div class="dock-actions">
        <CompareButton disabled={!comparable} />
        <DockButton
          name={labels.split}
          text={labels.splitShort}
          title={labels.splitHelp}
          icon={<SplitIcon />}
          pressed={store.splitShown.value !== null}
          disabled={!comparable}
          onClick={toggleSplit}
        />
        {actions.map((action) => (
          <DockButton key={action.name} {...action} wideOnly />
        ))}
        <span class="narrow-only">
          <MoreActions actions={actions} />
        </span>
        <Downloads />
      </div>
    </section>
  );
}

type Action = Omit<ComponentProps<typeof DockButton>, "wideOnly">;

/** What has no button of its own where there is little room. */
function rareActions(): readonly Action[] {
  const noPicture = store.pictureNow.value === null;
  const views: readonly Action[] = [
    {
      name: labels.sideBySide,
      text: labels.sideBySide,
      title: labels.sideBySideHelp,
      icon: <SideBySideIcon />,
      pressed: store.sideBySide.value,
      disabled: noPicture,
      onClick: toggleSideBySide,
    },
    {
      name: labels.flicker,
      text: labels.flicker,
      title: labels.flickerHelp,
      icon: <FlickerIcon />,
      pressed: store.flickering.value,
      disabled: noPicture,
      onClick: toggleFlicker,
    },
  ];
  if (!store.editable.value) return views;
  return [
    ...views,
    {
      name: labels.reset,
      text: labels.reset,
      title: labels.resetHelp,
      icon: <ResetIcon />,
      disabled: !canReset(),
      onClick: reset,
    },
    {
      name: labels.further,
      text: labels.furtherShort,
      title: labels.furtherHelp,
      icon: <DrawIcon />,
      disabled: !canEditFurther(),
      onClick: editFurther,
    },
  ];
}

function MoreActions({ actions }: { readonly actions: readonly Action[] }) {
  return (
    <Menu name={labels.more} text={labels.more} icon={<MoreIcon />} class="menu-above">
      {actions.map(({ name, title, icon, disabled, onClick }) => (
        <MenuItem key={name} disabled={disabled} title={title} onClick={onClick}>
          {icon}
          {name}
        </MenuItem>
      ))}
    </Menu>
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
