import { useEffect, useRef, useState } from "preact/hooks";
import { MAX_PROMPT } from "../room/protocol.ts";
import { Bars } from "../ui/Bars.tsx";
import { CloseIcon, DrawIcon } from "../ui/icons.tsx";
import { texts as ui } from "../ui/texts.ts";
import { fetchModel } from "./api.ts";
import {
  MAX_CANDIDATES,
  cancelGeneration,
  candidates,
  chooseCandidate,
  discardGeneration,
  generation as current,
  isUnderWay,
  ongoing,
  wanted,
} from "./generation.ts";
import type { Generation } from "./generation.ts";
import type { PictureOpener } from "./picture-opener.ts";
import { texts } from "./texts.ts";

const labels = texts.generation;

/** Milliseconds within which a second click on Generate is a double click and not Cancel. */
const DOUBLE_CLICK = 400;
/** The server's name for the model that comes with it. */
const BUILTIN_MODEL = "built-in";

export function GenerateForm({ opener }: { readonly opener: PictureOpener }) {
  const [prompt, setPrompt] = useState(current.value?.prompt ?? "");
  const model = useModelName();
  const busy = isUnderWay(ongoing.value);
  const empty = prompt.trim() === "";
  return (
    <form
      class="generate-form"
      aria-labelledby="generate-title"
      onSubmit={(event) => {
        event.preventDefault();
        if (!busy && !empty) opener.generate(prompt.trim());
      }}
    >
      <h2 id="generate-title">{labels.title}</h2>
      <div class="generate-row">
        <input
          class="field"
          type="text"
          autocomplete="off"
          enterkeyhint="go"
          maxLength={MAX_PROMPT}
          aria-label={labels.prompt}
          aria-describedby="generate-help"
          placeholder={labels.placeholder}
          value={prompt}
          // Disabling it would take the focus away.
          readOnly={busy}
          onInput={(event) => setPrompt(event.currentTarget.value)}
        />
        <GenerateButton busy={busy} disabled={!busy && empty} />
      </div>
      {model === BUILTIN_MODEL && !busy && <Suggestions choose={setPrompt} />}
      <small id="generate-help">
        {labels.help} {model !== null && labels.model(model, model === BUILTIN_MODEL)}
      </small>
    </form>
  );
}

/** Fills in a prompt, to be sent as it is or changed. */
function Suggestions({ choose }: { readonly choose: (prompt: string) => void }) {
  return (
    <div class="suggestions" role="group" aria-label={labels.suggestions}>
      {labels.subjects.map(([name, prompt]) => (
        <button key={name} type="button" class="suggestion" title={prompt} onClick={() => choose(prompt)}>
          {name}
        </button>
      ))}
    </div>
  );
}

/** Generate and Cancel in one place, so that the focus stays on the button when it changes. */
function GenerateButton({ busy, disabled }: { readonly busy: boolean; readonly disabled: boolean }) {
  const pressed = useRef(0);
  return (
    <button
      type={busy ? "button" : "submit"}
      class={busy ? "small-button" : "primary-button"}
      aria-disabled={disabled}
      onClick={(event) => {
        if (!busy) {
          // Enter in the input also clicks the button, without a pointer.
          if (event.detail > 0) pressed.current = event.timeStamp;
          return;
        }
        // The button may be Generate again before the browser asks whether it submits.
        event.preventDefault();
        if (event.timeStamp - pressed.current > DOUBLE_CLICK) cancelGeneration();
      }}
    >
      {!busy && <DrawIcon />}
      {busy ? labels.cancel : labels.generate}
    </button>
  );
}

/** The picture as it appears, and what can be done with it once it is finished. */
export function GenerationView({
  generation,
  opener,
}: {
  readonly generation: Generation;
  readonly opener: PictureOpener;
}) {
  const figure = useRef<HTMLElement>(null);
  const { phase } = generation;
  const next = ongoing.value;
  // On a phone it is above the form and may be out of sight.
  useEffect(() => figure.current?.scrollIntoView({ block: "nearest" }), []);
  return (
    <figure class="showcase generation" ref={figure} data-testid="generation" data-phase={phase}>
      <GenerationPicture generation={generation} />
      <figcaption>
        <p class="generation-caption">
          <strong role="status">{titleOf(generation)}</strong>{" "}
          <span role={phase === "failed" ? "alert" : undefined}>{detailOf(generation)}</span>
        </p>
        {next?.phase === "failed" && next !== generation && <p role="alert">{next.message}</p>}
        {!isUnderWay(generation) && <GenerationButtons generation={generation} opener={opener} />}
        {(candidates.value.length > 1 || (candidates.value.length > 0 && isUnderWay(next))) && (
          <Candidates shown={generation} />
        )}
        {isUnderWay(next) && <GenerationProgress generation={next} />}
      </figcaption>
    </figure>
  );
}

function GenerationPicture({ generation }: { readonly generation: Generation }) {
  const { phase, picture, prompt } = generation;
  const done = phase === "done";
  return (
    <div class={`generation-picture ${isUnderWay(generation) && picture === null ? "is-blank" : ""}`}>
      {picture === null ? (
        <DrawIcon />
      ) : (
        <img
          src={picture}
          class={done ? "" : "is-rough"}
          alt={done ? labels.picture(prompt) : labels.unfinished(prompt)}
        />
      )}
    </div>
  );
}

function GenerationButtons({
  generation,
  opener,
}: {
  readonly generation: Generation;
  readonly opener: PictureOpener;
}) {
  const { id, prompt } = generation;
  const done = generation.phase === "done";
  const missing = MAX_CANDIDATES - candidates.value.length;
  return (
    <div class="row">
      {done && id !== null && (
        <button type="button" class="primary-button" disabled={opener.busy} onClick={() => opener.openGeneration(id)}>
          {labels.use}
        </button>
      )}
      {!isUnderWay(ongoing.value) && (
        <button
          type="button"
          class="small-button"
          title={done ? (missing > 0 ? labels.moreHelp : labels.anewHelp) : ""}
          onClick={() => (missing > 0 ? opener.generateMissing() : opener.generate(prompt))}
        >
          {done ? (missing > 0 ? labels.more(missing) : labels.anew) : labels.retry}
        </button>
      )}
      <span class="spring" />
      <button
        type="button"
        class="icon-button"
        aria-label={labels.discard}
        title={labels.discard}
        onClick={discardGeneration}
      >
        <CloseIcon />
      </button>
    </div>
  );
}

/** The finished pictures of the prompt, to choose from, and the places of those that follow. */
function Candidates({ shown }: { readonly shown: Generation }) {
  const next = ongoing.value;
  const missing = isUnderWay(next) ? Math.max(0, wanted.value - candidates.value.length) : 0;
  return (
    <div class="candidates" role="group" aria-label={labels.candidates} data-testid="candidates">
      {candidates.value.map((candidate, index) => (
        <button
          key={candidate.id}
          type="button"
          aria-label={labels.candidate(index + 1, candidate.seed ?? 0)}
          title={labels.candidate(index + 1, candidate.seed ?? 0)}
          aria-pressed={candidate.id === shown.id}
          onClick={() => chooseCandidate(candidate)}
        >
          <img src={candidate.picture ?? ""} alt="" />
        </button>
      ))}
      {Array.from({ length: missing }, (_, index) => (
        <span key={index} class="candidate-place" aria-hidden="true">
          {index === 0 && next?.picture && <img src={next.picture} class="is-rough" alt="" />}
        </span>
      ))}
    </div>
  );
}

function GenerationProgress({ generation: { phase, step, steps } }: { readonly generation: Generation }) {
  const done = phase === "generating" && steps > 0 ? Math.min(1, step / steps) : null;
  return <Bars label={labels.phases[phase]} shares={[1]} current={done === null ? null : 0} done={done} />;
}

function titleOf({ phase }: Generation): string {
  if (phase !== "done" || !isUnderWay(ongoing.value)) return labels.phases[phase];
  return labels.generatedOf(candidates.value.length, wanted.value);
}

function detailOf({ phase, ahead, secondsLeft, step, message, prompt, seed }: Generation): string {
  if (phase === "failed") return message;
  if (phase === "done" && seed !== null) return labels.details(prompt, seed);
  const parts: string[] = [];
  if (phase === "waiting" && ahead > 0) parts.push(labels.ahead(ahead));
  // A single step is too little for an estimate.
  if (secondsLeft !== null && (phase === "waiting" || step > 1)) parts.push(ui.timeLeft(secondsLeft));
  return parts.join(" · ");
}

/** Null while it is unknown. */
function useModelName(): string | null {
  const [name, setName] = useState<string | null>(null);
  // The page works without it.
  useEffect(() => void fetchModel().then(setName, () => undefined), []);
  return name;
}
