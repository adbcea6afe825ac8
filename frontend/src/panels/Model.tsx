import { useSignal } from "@preact/signals";
import { canKeepPreview, keepPreview } from "../room/keep-preview.ts";
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

/** Shown when the model has turned out not to know pictures of this kind. */
export function UnknownPictureNote() {
  const dismissed = useSignal(false);
  const builtin = store.room.value.model?.kind === "builtin";
  if (!store.room.value.unknownPicture || !store.editable.value || dismissed.value) return null;
  return (
    <section class="note" data-testid="unknown-note" aria-labelledby="unknown-title">
      <h2 id="unknown-title">{labels.unknownTitle}</h2>
      <p>
        {labels.unknown}{" "}
        {builtin && (
          <>
            {labels.otherModel} <code>{labels.otherModelCommand}</code>
          </>
        )}
      </p>
      <button
        type="button"
        class="small-button"
        disabled={!canKeepPreview()}
        title={canKeepPreview() ? "" : labels.keepNeedsPoints}
        onClick={() => void keepPreview()}
      >
        {labels.keep}
      </button>
      <button type="button" class="small-button" onClick={() => (dismissed.value = true)}>
        {labels.dismiss}
      </button>
    </section>
  );
}
