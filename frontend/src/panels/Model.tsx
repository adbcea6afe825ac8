import { signal, useSignal } from "@preact/signals";
import type { ComponentChild } from "preact";
import { useEffect } from "preact/hooks";
import { canKeepPreview, keepPreview } from "../room/keep-preview.ts";
import type { ModelInfo } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { texts } from "./texts.ts";

const labels = texts.model;

/** The picker, once someone has opened it. */
const Picker = signal<((props: { readonly onClose: () => void }) => ComponentChild) | null>(null);

async function openPicker(): Promise<void> {
  const { ModelPicker } = await import("./ModelPicker.tsx");
  Picker.value = ModelPicker;
}

/** The model in use and what it is good for. */
export function ModelCard() {
  useEffect(() => () => void (Picker.value = null), []);
  const model = store.room.value.model;
  if (model === null) return null;
  const Shown = Picker.value;
  return (
    <div class="model" data-testid="model">
      <strong>{nameOf(model)}</strong> <span>{model.kind === "builtin" ? labels.builtin : labels.stableDiffusion}</span>{" "}
      {store.editable.value && (
        <button type="button" class="small-button" onClick={() => void openPicker()}>
          {labels.change}
        </button>
      )}
      {Shown && <Shown onClose={() => (Picker.value = null)} />}
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
