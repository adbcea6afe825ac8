import { useRef } from "preact/hooks";
import { MAX_PROMPT } from "../protocol.ts";
import { clearMask, invertMask, loadMask, setPrompt } from "../session.ts";
import * as store from "../store.ts";
import { choose } from "../tools.ts";
import { texts } from "../texts.ts";
import { ActivityList } from "./Activity.tsx";
import { ModelCard, PhotoNote } from "./Model.tsx";
import { PointList } from "./Points.tsx";
import { SettingsSection } from "./Settings.tsx";
import { Typed } from "./Typed.tsx";

export function Panel() {
  return (
    <aside class="panel" aria-label={texts.editor.panel}>
      <PhotoNote />
      <PointList />
      <MaskSection />
      <PromptSection />
      <SettingsSection />
      <ActivityList />
      <ModelCard />
    </aside>
  );
}

function MaskSection() {
  const file = useRef<HTMLInputElement>(null);
  const painted = (store.document.value?.mask.length ?? 0) > 0;
  return (
    <section aria-labelledby="mask-title">
      <h2 id="mask-title">{texts.mask.title}</h2>
      <p class="empty">{painted ? texts.mask.some : texts.mask.all}</p>
      {store.editable.value && (
        <div class="row">
          {!painted && (
            <button type="button" class="small-button" onClick={() => choose("paint")}>
              {texts.mask.paint}
            </button>
          )}
          <button type="button" class="small-button" onClick={() => file.current?.click()}>
            {texts.mask.load}
          </button>
          {painted && (
            <>
              <button
                type="button"
                class="small-button"
                onClick={() => (store.maskShown.value = !store.maskShown.value)}
              >
                {store.maskShown.value ? texts.mask.hide : texts.mask.show}
              </button>
              <button type="button" class="small-button" onClick={invertMask}>
                {texts.mask.invert}
              </button>
              <button type="button" class="small-button" onClick={clearMask}>
                {texts.mask.clear}
              </button>
            </>
          )}
          <input
            ref={file}
            type="file"
            class="visually-hidden"
            tabIndex={-1}
            accept="image/*"
            aria-label={texts.mask.load}
            data-testid="mask-file"
            onChange={(event) => {
              const chosen = event.currentTarget.files?.[0];
              event.currentTarget.value = "";
              if (chosen) void loadMask(chosen);
            }}
          />
        </div>
      )}
    </section>
  );
}

function PromptSection() {
  const prompt = store.document.value?.prompt ?? "";
  const written = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  /** What was sent since the field got the focus: leaving it does not bring back what others have changed since then. */
  const sent = useRef<string | null>(null);
  const send = (value: string) => {
    clearTimeout(written.current);
    if (value.trim() === sent.current) return;
    sent.current = value.trim();
    setPrompt(sent.current);
  };
  const busy = store.running.value;
  if (!store.editable.value) {
    return prompt === "" ? null : (
      <section>
        <h2>{texts.prompt.title}</h2>
        <p class="empty">{prompt}</p>
      </section>
    );
  }
  return (
    <section>
      <h2>
        <label for="prompt">{texts.prompt.title}</label>
      </h2>
      <Typed
        id="prompt"
        type="text"
        class="field"
        autocomplete="off"
        maxLength={MAX_PROMPT}
        placeholder={texts.prompt.placeholder}
        value={prompt}
        disabled={busy}
        title={busy ? texts.prompt.busy : ""}
        onFocus={() => (sent.current = null)}
        send={(field) => send(field.value)}
        written={(text) => {
          clearTimeout(written.current);
          written.current = setTimeout(() => send(text), 600);
        }}
      />
    </section>
  );
}
