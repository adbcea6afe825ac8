import { useEffect, useRef, useState } from "preact/hooks";
import { fetchModel } from "../api.ts";
import { drawing as now, isUnderWay, putAway } from "../drawing.ts";
import type { Drawing } from "../drawing.ts";
import { MAX_PROMPT } from "../protocol.ts";
import { texts } from "../texts.ts";
import type { Intake } from "./intake.tsx";
import { CloseIcon, DrawIcon } from "./icons.tsx";

const words = texts.drawing;
/** Milliseconds during which a second click on Draw is a double click and no Cancel. */
const DOUBLE_CLICK = 400;
/** What the server calls the model that comes with it. */
const BUILT_IN = "built-in";

/** A new picture from words: the words, and Draw and Cancel in one place, so that the focus stays on it whichever it is. */
export function WordsForm({ intake }: { readonly intake: Intake }) {
  const [prompt, setPrompt] = useState(now.value?.prompt ?? "");
  const going = isUnderWay(now.value);
  const pressed = useRef(0);
  const [model, setModel] = useState<string | null>(null);
  // The page works without knowing.
  useEffect(() => void fetchModel().then(setModel, () => undefined), []);
  return (
    <form
      class="words"
      aria-labelledby="words-title"
      onSubmit={(event) => {
        event.preventDefault();
        if (!going && prompt.trim() !== "") intake.draw(prompt.trim());
      }}
    >
      <h2 id="words-title">{words.title}</h2>
      <div class="words-row">
        <input
          class="field"
          type="text"
          autocomplete="off"
          enterkeyhint="go"
          maxLength={MAX_PROMPT}
          aria-label={words.words}
          aria-describedby="words-help"
          placeholder={words.placeholder}
          value={prompt}
          // Not disabled, which would take the focus away.
          readOnly={going}
          onInput={(event) => setPrompt(event.currentTarget.value)}
        />
        <button
          type={going ? "button" : "submit"}
          class={going ? "small-button" : "primary-button"}
          aria-disabled={!going && prompt.trim() === ""}
          onClick={(event) => {
            if (!going) {
              // Enter in the field comes here as a click, too: one of no pointer.
              if (event.detail > 0) pressed.current = event.timeStamp;
              return;
            }
            // By the time that the browser asks what the button is for, it may be Draw again.
            event.preventDefault();
            if (event.timeStamp - pressed.current > DOUBLE_CLICK) putAway();
          }}
        >
          {!going && <DrawIcon />}
          {going ? words.cancel : words.draw}
        </button>
      </div>
      <small id="words-help">
        {words.help} {model !== null && words.model(model, model === BUILT_IN)}
      </small>
    </form>
  );
}

/** The picture as it appears, and what to do with it once it is there. */
export function DrawingView({ drawing, intake }: { readonly drawing: Drawing; readonly intake: Intake }) {
  const figure = useRef<HTMLElement>(null);
  const { id, phase, picture, prompt } = drawing;
  const going = isUnderWay(drawing);
  // On a phone it is above the words, and may be out of sight.
  useEffect(() => figure.current?.scrollIntoView({ block: "nearest" }), []);
  return (
    <figure class="show drawing" ref={figure} data-testid="drawing" data-phase={phase}>
      <div class={`drawing-sheet ${going && picture === null ? "is-blank" : ""}`}>
        {picture === null ? (
          <DrawIcon />
        ) : (
          <img
            src={picture}
            class={phase === "done" ? "" : "is-rough"}
            alt={phase === "done" ? words.picture(prompt) : words.appearing(prompt)}
          />
        )}
      </div>
      <figcaption>
        <p class="drawing-words">
          <strong role="status">{words.phases[phase]}</strong>{" "}
          <span role={phase === "failed" ? "alert" : undefined}>{detailOf(drawing)}</span>
        </p>
        {going ? (
          <Bar drawing={drawing} />
        ) : (
          <div class="row">
            {phase === "done" && id !== null && (
              <button
                type="button"
                class="primary-button"
                disabled={intake.busy}
                onClick={() => intake.openDrawing(id)}
              >
                {words.use}
              </button>
            )}
            <button
              type="button"
              class="small-button"
              title={phase === "done" ? words.anotherHelp : ""}
              onClick={() => intake.draw(prompt)}
            >
              {phase === "done" ? words.another : words.again}
            </button>
            <span class="spring" />
            <button
              type="button"
              class="icon-button"
              aria-label={words.putAway}
              title={words.putAway}
              onClick={putAway}
            >
              <CloseIcon />
            </button>
          </div>
        )}
      </figcaption>
    </figure>
  );
}

function detailOf({ phase, before, secondsLeft, step, message, prompt, seed }: Drawing): string {
  if (phase === "failed") return message;
  if (phase === "done" && seed !== null) return words.drawn(prompt, seed);
  const parts: string[] = [];
  if (phase === "waiting" && before > 0) parts.push(words.before(before));
  // One step is no pace to reckon by.
  if (secondsLeft !== null && (phase === "waiting" || step > 1)) parts.push(texts.stage.left(secondsLeft));
  return parts.join(" · ");
}

function Bar({ drawing: { phase, step, steps } }: { readonly drawing: Drawing }) {
  const share = phase === "drawing" && steps > 0 ? Math.min(1, step / steps) : null;
  return (
    <div
      class={`bars ${share === null ? "bars-waiting" : ""}`}
      role="progressbar"
      aria-label={words.phases[phase]}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(share === null ? {} : { "aria-valuenow": Math.round(share * 100) })}
    >
      <span>
        <i style={{ transform: `scaleX(${share ?? 0})` }} />
      </span>
    </div>
  );
}
