import { signal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as store from "../room/store.ts";
import { texts } from "./later-texts.ts";

const labels = texts.tour;

const STORAGE_KEY = "livedrag.tour";

/** Whether this browser has seen the tour, or does not want it. */
const dismissed = signal(read());

/** Three hints for a person's first picture. Doing what a hint says goes on to the next one. */
export function Tour() {
  const step = useSignal(0);
  const done = [store.drags.value.length > 0, store.mask.value.length > 0, store.running.value];
  useEffect(() => {
    while (done[step.value] && step.value < labels.hints.length) step.value += 1;
    if (step.value >= labels.hints.length) dismissTour();
  }, [...done, step.value]);
  const hint = labels.hints[step.value];
  if (dismissed.value || hint === undefined || !store.editable.value || store.original.value === null) return null;
  const last = step.value === labels.hints.length - 1;
  return (
    <section class="note tour" data-testid="tour" aria-labelledby="tour-title">
      <h2 id="tour-title">
        {hint.title} <span class="count">{labels.step(step.value + 1, labels.hints.length)}</span>
      </h2>
      <p>
        <span class="for-mouse">{hint.text}</span>
        <span class="for-touch">{hint.touch}</span>
      </p>
      <div class="row">
        <button type="button" class="small-button" onClick={() => (last ? dismissTour() : (step.value += 1))}>
          {last ? labels.done : labels.next}
        </button>
        {!last && (
          <button type="button" class="small-button" onClick={dismissTour}>
            {labels.dismiss}
          </button>
        )}
      </div>
    </section>
  );
}

function dismissTour(): void {
  dismissed.value = true;
  try {
    localStorage.setItem(STORAGE_KEY, "done");
  } catch {
    // Storage is full or forbidden: the tour is back when the page is opened again.
  }
}

function read(): boolean {
  try {
    return globalThis.localStorage?.getItem(STORAGE_KEY) === "done";
  } catch {
    return false;
  }
}
