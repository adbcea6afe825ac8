import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { stopRun } from "../room/actions.ts";
import * as store from "../room/store.ts";
import { areUnderWay, canTry, discardTrials, keepTrial, trials, tryVariants } from "../room/trials.ts";
import type { Trial } from "../room/trials.ts";
import { MAX_VARIANTS, variantsOf } from "../room/variants.ts";
import type { Variant } from "../room/variants.ts";
import { Dialog } from "../ui/Dialog.tsx";
import { Option } from "../ui/Option.tsx";
import { texts as laterTexts } from "./later-texts.ts";
import { isPreparing, runStatus } from "./run-status.ts";
import { texts } from "./texts.ts";
import { trialsShown } from "./TrialsButton.tsx";

const labels = laterTexts.trials;
/** Chosen at first. */
const SUGGESTED = 2;

/** The comparison of runs with other settings. */
export function TrialsDialog() {
  // It belongs to its room.
  useEffect(() => () => void (trialsShown.value = false), []);
  if (!trialsShown.value) return null;
  const list = trials.value;
  return (
    <Dialog title={labels.title} wide={list !== null} onClose={() => (trialsShown.value = false)}>
      {list === null ? <Choice /> : <Trials list={list} />}
    </Dialog>
  );
}

function Choice() {
  const model = store.room.value.model;
  const variants = model === null ? [] : variantsOf(model, store.document.value?.settings ?? {});
  const chosen = useSignal<ReadonlySet<string>>(new Set(variants.slice(0, SUGGESTED).map(({ id }) => id)));
  const toggle = (id: string) => {
    const next = new Set(chosen.value);
    if (!next.delete(id)) next.add(id);
    chosen.value = next;
  };
  const picked = variants.filter(({ id }) => chosen.value.has(id));
  return (
    <>
      <p>{labels.explanation}</p>
      <fieldset class="variants">
        <legend class="visually-hidden">{labels.choose}</legend>
        {variants.map((variant) => (
          <Option
            key={variant.id}
            type="checkbox"
            name={nameOf(variant)}
            detail={helpOf(variant)}
            checked={chosen.value.has(variant.id)}
            disabled={!chosen.value.has(variant.id) && picked.length >= MAX_VARIANTS}
            onChoose={() => toggle(variant.id)}
          />
        ))}
      </fieldset>
      <div class="row">
        <button
          type="button"
          class="primary-button"
          disabled={picked.length === 0 || !canTry()}
          onClick={() => void tryVariants(picked)}
        >
          {labels.run(picked.length)}
        </button>
      </div>
    </>
  );
}

function Trials({ list }: { readonly list: readonly Trial[] }) {
  const underWay = areUnderWay(list);
  return (
    <>
      <div class="trials" data-testid="trials">
        {list.map((trial) => (
          <TrialFigure key={trial.variant?.id ?? ""} trial={trial} underWay={underWay} />
        ))}
      </div>
      <div class="row">
        {underWay ? (
          <button type="button" class="small-button" disabled={!store.running.value} onClick={stopRun}>
            {labels.stop}
          </button>
        ) : (
          <button type="button" class="small-button" onClick={discardTrials}>
            {labels.others}
          </button>
        )}
      </div>
    </>
  );
}

function TrialFigure({ trial, underWay }: { readonly trial: Trial; readonly underWay: boolean }) {
  const { variant, picture, state } = trial;
  const name = variant === null ? labels.before : nameOf(variant);
  const size = store.picture.value;
  return (
    <figure data-state={state}>
      <div class="trial-picture" style={{ aspectRatio: size ? `${size.width} / ${size.height}` : "1" }}>
        {picture !== "" && <img src={picture} alt={name} />}
        {picture === "" && <span>{waitingText(trial)}</span>}
      </div>
      <figcaption>
        <strong>{name}</strong>
        <small>{state === "done" ? outcomeOf(trial) : ""}</small>
        {state === "done" && !underWay && (
          <button
            type="button"
            class="small-button is-strong"
            aria-label={labels.keepName(name)}
            onClick={() => {
              keepTrial(trial);
              trialsShown.value = false;
            }}
          >
            {labels.keep}
          </button>
        )}
      </figcaption>
    </figure>
  );
}

function waitingText({ state, message }: Trial): string {
  if (state === "waiting") return labels.waiting;
  if (state === "failed") return message || labels.failed;
  const { title, detail } = runStatus();
  return isPreparing(store.room.value.prepared) ? title : `${title} ${detail}`;
}

function outcomeOf({ run, left }: Trial): string {
  if (run?.outcome === "arrived") return labels.reached(run.iterations);
  return left === null ? "" : texts.points.left(left);
}

function nameOf({ kind, value }: Variant): string {
  if (kind === "preset") return labels.preset(texts.settings.presets[value]?.[0] ?? value);
  return labels.kinds[kind][0](value);
}

function helpOf({ kind, value }: Variant): string {
  return kind === "preset" ? (texts.settings.presets[value]?.[1] ?? "") : labels.kinds[kind][1];
}
