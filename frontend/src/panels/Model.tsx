import { useSignal } from "@preact/signals";
import * as store from "../room/store.ts";
import { texts } from "./texts.ts";

const labels = texts.model;

/** The model in use and what it is good for. */
export function ModelCard() {
  const model = store.room.value.model;
  if (model === null) return null;
  return (
    <p class="model" data-testid="model">
      <strong>{model.name}</strong> <span>{model.kind === "builtin" ? labels.builtin : labels.stableDiffusion}</span>
    </p>
  );
}

/** Shown when a photo is opened with the built-in model. */
export function PhotoNote() {
  const dismissed = useSignal(false);
  const builtin = store.room.value.model?.kind === "builtin";
  if (!store.originalIsPhoto.value || !builtin || !store.editable.value || dismissed.value) return null;
  return (
    <section class="note" data-testid="photo-note" aria-labelledby="photo-title">
      <h2 id="photo-title">{labels.photoTitle}</h2>
      <p>
        {labels.photo} <code>{labels.photoCommand}</code>
      </p>
      <button type="button" class="small-button" onClick={() => (dismissed.value = true)}>
        {labels.dismiss}
      </button>
    </section>
  );
}
