/** The keyboard shortcuts of the editor. Keys that a focused control needs for itself are left to it. */

import { useEffect } from "preact/hooks";
import { resizeBrush } from "../canvas/brush.ts";
import { pan, zoom, zoomToActualSize, zoomToFit } from "../canvas/camera.ts";
import { moveByKey, placeAtCrosshair, showCrosshairOrPlace } from "../canvas/crosshair.ts";
import { stopFlicker, toggleFlicker } from "../canvas/flicker.ts";
import { cancel, chooseShape, chooseTool, isPressed } from "../canvas/pointer.ts";
import { closeSideBySide, toggleSideBySide } from "../canvas/SideBySide.tsx";
import { toggleSplit } from "../canvas/Split.tsx";
import { duplicateDrag, redo, removeDrag, removePin, startRun, stopRun, undo } from "../room/actions.ts";
import { ZOOM_STEP, arrowKey } from "../room/geometry.ts";
import type { View } from "../room/geometry.ts";
import * as store from "../room/store.ts";

/** CSS pixels that an arrow key moves the view. */
const PAN_STEP = 40;
const FAST_PAN = 4;
const CONTROLS = "button, a, summary, label";

interface KeyPress {
  readonly event: KeyboardEvent;
  /** The control that has the focus. */
  readonly control: Element | null;
}

/** Returns whether the key was used. */
type Shortcut = (press: KeyPress) => boolean;

/** The control that the mouse clicked last. */
let lastClicked: Element | null = null;
/** The camera at the time the space bar went down; undefined while it is up. */
let cameraAtSpace: View | null | undefined;

export function useShortcuts(): void {
  useEffect(() => {
    window.addEventListener("keydown", onKeyDown);
    window.addEventListener("keyup", onKeyUp);
    window.addEventListener("blur", onBlur);
    window.addEventListener("click", onClick);
    return () => {
      window.removeEventListener("keydown", onKeyDown);
      window.removeEventListener("keyup", onKeyUp);
      window.removeEventListener("blur", onBlur);
      window.removeEventListener("click", onClick);
    };
  }, []);
}

/** Calls `open` on a question mark, wherever the focus is but in a text field. */
export function useQuestionMark(open: () => void): void {
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (event.key !== "?" || isTyping(event)) return;
      open();
      event.preventDefault();
    };
    window.addEventListener("keydown", listen);
    return () => window.removeEventListener("keydown", listen);
  }, []);
}

/** Whether a key goes into a text field. */
function isTyping(event: KeyboardEvent): boolean {
  const fields = "input:not([type=radio], [type=checkbox], [type=range]), textarea, select";
  return event.target instanceof Element && event.target.closest(fields) !== null;
}

function onKeyDown(event: KeyboardEvent): void {
  const target = event.target instanceof Element ? event.target : null;
  if (event.altKey || event.defaultPrevented || target?.closest("dialog, [popover]")) return;
  // The focus may be on nothing in it, when what had it has gone.
  if (window.document.querySelector("dialog[open]") !== null) return;
  // The browser closes an open menu, wherever the focus is.
  if (event.key === "Escape" && window.document.querySelector(":popover-open") !== null) return;
  if (event.ctrlKey || event.metaKey) {
    if (!isTyping(event) && pressWithControl(event)) event.preventDefault();
    return;
  }
  if (target?.closest("input, textarea, select")) {
    if (event.key === "Escape" && target instanceof HTMLElement) target.blur();
    return;
  }
  const shortcut = arrowKey(event.key) === null ? SHORTCUTS[nameOf(event.key)] : pressArrow;
  if (shortcut?.({ event, control: target?.closest(CONTROLS) ?? null })) event.preventDefault();
}

function onKeyUp(event: KeyboardEvent): void {
  if (event.key.toLowerCase() === "c") store.comparing.value = false;
  if (event.key === " " && cameraAtSpace !== undefined) {
    releaseSpace();
    event.preventDefault();
  }
}

function onBlur(): void {
  store.comparing.value = false;
  store.spaceHeld.value = false;
  cameraAtSpace = undefined;
}

function onClick(event: MouseEvent): void {
  lastClicked = event.detail > 0 && event.target instanceof Element ? event.target.closest(CONTROLS) : null;
}

function pressWithControl(event: KeyboardEvent): boolean {
  switch (event.key.toLowerCase()) {
    case "z":
      if (event.shiftKey) redo();
      else undo();
      return true;
    case "y":
      redo();
      return true;
    default:
      return false;
  }
}

/** Single letters in lower case. */
function nameOf(key: string): string {
  return key.length === 1 ? key.toLowerCase() : key;
}

const always =
  (act: () => void): Shortcut =>
  () => {
    act();
    return true;
  };

const SHORTCUTS: Readonly<Record<string, Shortcut>> = {
  Escape: always(pressEscape),
  Enter: pressEnter,
  " ": pressSpace,
  Delete: removeSelected,
  Backspace: removeSelected,
  "+": always(() => zoom(ZOOM_STEP)),
  "=": always(() => zoom(ZOOM_STEP)),
  "-": always(() => zoom(1 / ZOOM_STEP)),
  "−": always(() => zoom(1 / ZOOM_STEP)),
  "0": always(zoomToFit),
  "1": always(zoomToActualSize),
  "[": always(() => resizeBrush(-1)),
  "]": always(() => resizeBrush(1)),
  v: always(() => chooseTool("points")),
  n: always(() => chooseTool("pin")),
  b: always(() => chooseTool("paint")),
  e: always(() => chooseTool("erase")),
  h: always(() => chooseTool("hand")),
  r: always(() => chooseShape("rectangle")),
  l: always(() => chooseShape("lasso")),
  w: always(() => chooseShape("select")),
  m: always(() => (store.maskShown.value = !store.maskShown.value)),
  x: always(toggleSplit),
  s: unlessRepeated(toggleSideBySide),
  f: unlessRepeated(toggleFlicker),
  c: always(() => (store.comparing.value = true)),
  p: unlessRepeated(() => {
    focusCanvas();
    showCrosshairOrPlace();
  }),
  d: unlessRepeated(() => {
    if (store.selected.value !== null) duplicateDrag(store.selected.value.id);
  }),
};

/** Ignores the repeats of a key that is held down. */
function unlessRepeated(act: () => void): Shortcut {
  return ({ event }) => {
    if (!event.repeat) act();
    return true;
  };
}

/** Whether a focused control needs the arrow keys, Enter or the space bar for itself. */
function needsKey(control: Element | null): boolean {
  return control !== null && !control.hasAttribute("data-nudge");
}

function pressArrow({ event, control }: KeyPress): boolean {
  const direction = arrowKey(event.key);
  if (direction === null || needsKey(control)) return false;
  if (moveByKey(store.view.value, direction, event.shiftKey)) return true;
  if (event.target !== canvas()) return false;
  const step = -PAN_STEP * (event.shiftKey ? FAST_PAN : 1);
  pan([direction[0] * step, direction[1] * step]);
  return true;
}

function pressEscape(): void {
  if (stopFlicker() || closeSideBySide() || cancel()) return;
  if (store.running.value) stopRun();
  else store.selected.value = null;
}

function pressEnter({ event, control }: KeyPress): boolean {
  if (needsKey(control)) return false;
  if (!placeAtCrosshair() && !event.repeat) startRun();
  return true;
}

function pressSpace({ event, control }: KeyPress): boolean {
  // A button keeps the focus after a click, but the space bar isn't meant for it.
  if (control !== lastClicked && needsKey(control)) return false;
  if (!event.repeat) {
    cameraAtSpace = store.camera.value;
    store.spaceHeld.value = true;
  }
  return true;
}

/** A tap on the space bar stops the run; holding it to move the view does not. */
function releaseSpace(): void {
  const moved = cameraAtSpace !== store.camera.value || isPressed();
  cameraAtSpace = undefined;
  store.spaceHeld.value = false;
  if (!moved) stopRun();
}

function removeSelected(): boolean {
  const selection = store.selected.value;
  const pin = store.selectedPin.value;
  if (!store.editable.value) return false;
  if (selection === null && pin !== null && store.document.value?.pins[pin] !== undefined) {
    removePin(pin);
    return true;
  }
  if (selection === null) return false;
  removeDrag(selection.id);
  return true;
}

/** The crosshair shows that the canvas has the focus. */
function focusCanvas(): void {
  const element = canvas();
  if (element === null) return;
  element.dataset.focusShown = "";
  element.focus({ preventScroll: true });
}

function canvas(): HTMLElement | null {
  return window.document.querySelector<HTMLElement>("[data-testid=canvas]");
}
