import { useSignal } from "@preact/signals";
import { canKeepPreview, keepPreview } from "../room/keep-preview.ts";
import type { ModelInfo } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { lazy } from "../ui/lazy.tsx";
import { texts } from "./texts.ts";

const labels = texts.model;

const ModelPicker = lazy(async () => (await import("./ModelPicker.tsx")).ModelPicker);

/** The model in use and what it is good for. */
export function ModelCard() {
  const picking = useSignal(false);
  const model = store.room.value.model;
  if (model === null) return null;
  const name = nameOf(model);
  const goodFor = model.kind === "builtin" ? labels.builtin : labels.stableDiffusion;
  return (
    <div class="model" data-testid="model" title={`${name}: ${goodFor}`}>
      <strong>{name}</strong> <span>{goodFor}</span>{" "}
      {store.editable.value && (
        <button type="button" class="small-button" onClick={() => (picking.value = true)}>
          {labels.change}
        </button>
      )}
      {picking.value && <ModelPicker onClose={() => (picking.value = false)} />}
    </div>
  );
}

/** With the LoRAs and the autoencoder that the room has chosen. */
function nameOf({ name }: ModelInfo): string {
  const { loras = [], vae = "" } = store.document.value?.model ?? {};
  return [name, vae, ...loras.map((lora) => `${lora.name} ${lora.weight}`)].filter(Boolean).join(" + ");
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
