import { useSignal } from "@preact/signals";
import * as store from "../store.ts";
import { texts } from "../texts.ts";

/** The model in use and what it is good for: always in sight. */
export function ModelCard() {
  const model = store.room.value.model;
  if (model === null) return null;
  return (
    <p class="model" data-testid="model">
      <strong>{model.name}</strong> <span>{model.kind === "builtin" ? texts.model.builtin : texts.model.other}</span>
    </p>
  );
}

/** A kind word where the small model is given a photograph. */
export function PhotoNote() {
  const understood = useSignal(false);
  const shown = store.photograph.value && store.room.value.model?.kind === "builtin" && store.editable.value;
  if (!shown || understood.value) return null;
  return (
    <section class="note" data-testid="photo-note" aria-labelledby="photo-title">
      <h2 id="photo-title">{texts.model.photoTitle}</h2>
      <p>
        {texts.model.photo} <code>{texts.model.photoCommand}</code>
      </p>
      <button type="button" class="small-button" onClick={() => (understood.value = true)}>
        {texts.model.understood}
      </button>
    </section>
  );
}
