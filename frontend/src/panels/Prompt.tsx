import { useRef } from "preact/hooks";
import { setPrompt } from "../room/actions.ts";
import { MAX_PROMPT } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { DraftInput } from "../ui/DraftInput.tsx";
import { texts } from "./texts.ts";

const labels = texts.prompt;

/** Milliseconds after the last key until a draft is sent. */
const SEND_DELAY = 600;

export function PromptSection() {
  const prompt = store.document.value?.prompt ?? "";
  if (store.editable.value) return <PromptEditor prompt={prompt} />;
  if (prompt === "") return null;
  return (
    <section>
      <h2>{labels.title}</h2>
      <p class="empty">{prompt}</p>
    </section>
  );
}

function PromptEditor({ prompt }: { readonly prompt: string }) {
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  /** Sent since the input got the focus: leaving it must not overwrite what others have changed since then. */
  const lastSent = useRef<string | null>(null);
  const locked = store.running.value;
  const ignored = store.room.value.ignoredPrompt;
  const send = (text: string) => {
    clearTimeout(timer.current);
    if (text.trim() === lastSent.current) return;
    lastSent.current = text.trim();
    setPrompt(lastSent.current);
  };
  return (
    <section>
      <h2>
        <label for="prompt">{labels.title}</label>
      </h2>
      <DraftInput
        id="prompt"
        type="text"
        class="field"
        autocomplete="off"
        maxLength={MAX_PROMPT}
        placeholder={labels.placeholder}
        value={prompt}
        disabled={locked}
        title={locked ? labels.locked : ""}
        onFocus={() => (lastSent.current = null)}
        onCommit={(input) => send(input.value)}
        onDraft={(text) => {
          clearTimeout(timer.current);
          timer.current = setTimeout(() => send(text), SEND_DELAY);
        }}
      />
      {ignored !== "" && prompt.endsWith(ignored) && (
        <p class="empty" role="status">
          {labels.ignored(ignored)}
        </p>
      )}
    </section>
  );
}
