import type { Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { arrowKey } from "../geometry.ts";
import { redo, removeDrag, startRun, stopRun, undo } from "../session.ts";
import * as store from "../store.ts";
import {
  cancel,
  choose,
  duplicate,
  isPressed,
  nudge,
  pan,
  place,
  pointByKey,
  resizeBrush,
  zoom,
  zoomToActualSize,
  zoomToFit,
} from "../tools.ts";
import { texts } from "../texts.ts";
import { Sheet } from "./Sheet.tsx";
import { toggleSplit } from "./Split.tsx";
import { STEP } from "./Zoom.tsx";

/** CSS pixels that one press of an arrow key moves the view. */
const PAN = 40;
/** The control that the mouse pressed last. */
let clicked: Element | null = null;
/** Where the view was when the space bar went down; undefined while it is up. */
let spaceDown: typeof store.camera.value | undefined;

/** The keys of the whole editor. Keys that a focused control needs for itself stay with it. */
export function useKeys(): void {
  useEffect(() => {
    const down = (event: KeyboardEvent) => {
      const on = event.target instanceof Element ? event.target : null;
      if (event.altKey || event.defaultPrevented || on?.closest("dialog, [popover]")) return;
      if (event.ctrlKey || event.metaKey) {
        if (!isTyping(event) && withControl(event)) event.preventDefault();
        return;
      }
      if (on?.closest("input, textarea, select")) {
        if (event.key === "Escape" && on instanceof HTMLElement) on.blur();
        return;
      }
      const control = on?.closest("button, a, summary, label") ?? null;
      if (press(event, control)) event.preventDefault();
    };
    const up = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() === "c") store.comparing.value = false;
      if (event.key === " " && spaceDown !== undefined) {
        liftSpace();
        event.preventDefault();
      }
    };
    const away = () => {
      store.comparing.value = false;
      store.spaceHeld.value = false;
      spaceDown = undefined;
    };
    window.addEventListener("keydown", down);
    window.addEventListener("keyup", up);
    window.addEventListener("blur", away);
    const click = (event: MouseEvent) => {
      clicked =
        event.detail > 0 && event.target instanceof Element ? event.target.closest("button, a, summary, label") : null;
    };
    window.addEventListener("click", click);
    return () => {
      window.removeEventListener("click", click);
      window.removeEventListener("keydown", down);
      window.removeEventListener("keyup", up);
      window.removeEventListener("blur", away);
    };
  }, []);
}

/** Keys that go with Ctrl, or ⌘. Returns whether the key was ours. */
function withControl(event: KeyboardEvent): boolean {
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

/** Returns whether the key was ours. */
function press(event: KeyboardEvent, control: Element | null): boolean {
  const direction = arrowKey(event.key);
  if (direction !== null) {
    if (control !== null && !control.hasAttribute("data-nudge")) return false;
    if (nudge(store.view.value, direction, event.shiftKey)) return true;
    if (event.target !== canvas()) return false;
    const by = -PAN * (event.shiftKey ? 4 : 1);
    pan([direction[0] * by, direction[1] * by]);
    return true;
  }
  switch (event.key) {
    case "Escape":
      if (!cancel()) {
        if (store.running.value) stopRun();
        else store.selected.value = null;
      }
      return true;
    case " ":
      // A button that was pressed with the mouse has the focus, but nobody means it any more.
      if (control !== null && control !== clicked && !control.hasAttribute("data-nudge")) return false;
      if (!event.repeat) {
        spaceDown = store.camera.value;
        store.spaceHeld.value = true;
      }
      return true;
    case "Enter":
      if (control !== null && !control.hasAttribute("data-nudge")) return false;
      if (!place() && !event.repeat) startRun();
      return true;
    case "Delete":
    case "Backspace": {
      const taken = store.selected.value;
      if (taken === null || !store.editable.value) return false;
      removeDrag(taken.id);
      return true;
    }
    case "+":
    case "=":
      zoom(STEP);
      return true;
    case "-":
    case "−":
      zoom(1 / STEP);
      return true;
    case "0":
      zoomToFit();
      return true;
    case "1":
      zoomToActualSize();
      return true;
    case "[":
      resizeBrush(-1);
      return true;
    case "]":
      resizeBrush(1);
      return true;
    default:
      break;
  }
  switch (event.key.toLowerCase()) {
    case "p":
      if (event.repeat) return true;
      canvas()?.focus({ preventScroll: true });
      pointByKey();
      return true;
    case "v":
      choose("points");
      return true;
    case "b":
      choose("paint");
      return true;
    case "e":
      choose("erase");
      return true;
    case "h":
      choose("hand");
      return true;
    case "d":
      if (store.selected.value !== null && !event.repeat) duplicate(store.selected.value.id);
      return true;
    case "m":
      store.maskShown.value = !store.maskShown.value;
      return true;
    case "x":
      toggleSplit();
      return true;
    case "c":
      store.comparing.value = true;
      return true;
    default:
      return false;
  }
}

/** A tap on the space bar stops; held down to move the view, it does not. */
function liftSpace(): void {
  if (spaceDown === undefined) return;
  const moved = spaceDown !== store.camera.value || isPressed();
  spaceDown = undefined;
  store.spaceHeld.value = false;
  if (!moved) stopRun();
}

function canvas(): HTMLElement | null {
  return window.document.querySelector<HTMLElement>("[data-testid=canvas]");
}

export function Shortcuts({ open }: { readonly open: Signal<boolean> }) {
  useEffect(() => {
    const ask = (event: KeyboardEvent) => {
      if (event.key !== "?" || isTyping(event)) return;
      open.value = true;
      event.preventDefault();
    };
    window.addEventListener("keydown", ask);
    return () => window.removeEventListener("keydown", ask);
  }, []);
  const words = texts.shortcuts;
  return (
    <Sheet open={open} title={words.title}>
      <div class="sheet-groups">
        {words.groups.map((group) => (
          <section key={group.title}>
            <h3>{group.title}</h3>
            <dl>
              {group.keys.map(([keys, what]) => (
                <div key={what}>
                  <dt>
                    {keys.map((name) => (
                      <kbd key={name}>{name}</kbd>
                    ))}
                  </dt>
                  <dd>{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Sheet>
  );
}

function isTyping(event: KeyboardEvent): boolean {
  return (
    event.target instanceof Element &&
    event.target.closest("input:not([type=radio], [type=checkbox], [type=range]), textarea, select") !== null
  );
}
