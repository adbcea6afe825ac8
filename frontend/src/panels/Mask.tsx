import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { chooseTool } from "../canvas/pointer.ts";
import { clearMask, growMask, invertMask, setSettings } from "../room/actions.ts";
import { loadMask, PICTURE_TYPES } from "../room/files.ts";
import * as store from "../room/store.ts";
import { texts as ui } from "../ui/texts.ts";
import { texts } from "./texts.ts";

const labels = texts.mask;

/** In pixels of the picture. */
const FIRST_GROWTH = 8;
const MAX_GROWTH = 500;
/** In pixels of the working picture; more can be typed in the settings. */
const MAX_FEATHER = 16;

export function MaskSection() {
  const painted = store.mask.value.length > 0;
  return (
    <section aria-labelledby="mask-title">
      <h2 id="mask-title">{labels.title}</h2>
      <p class="empty">{painted ? labels.painted : labels.empty}</p>
      {store.editable.value && (
        <>
          <div class="row">
            {!painted && (
              <button type="button" class="small-button" onClick={() => chooseTool("paint")}>
                {labels.paint}
              </button>
            )}
            {painted && (
              <>
                <button
                  type="button"
                  class="small-button"
                  onClick={() => (store.maskShown.value = !store.maskShown.value)}
                >
                  {store.maskShown.value ? labels.hide : labels.show}
                </button>
                <button type="button" class="small-button" onClick={invertMask}>
                  {labels.invert}
                </button>
                <button type="button" class="small-button" onClick={clearMask}>
                  {labels.clear}
                </button>
              </>
            )}
          </div>
          {painted && <Growth />}
          {painted && <Feather />}
          <Load />
        </>
      )}
    </section>
  );
}

/** Moves the border of the area. */
function Growth() {
  const pixels = useSignal(FIRST_GROWTH);
  return (
    <div class="row">
      <button type="button" class="small-button" onClick={() => growMask(pixels.value)}>
        {labels.grow}
      </button>
      <button type="button" class="small-button" onClick={() => growMask(-pixels.value)}>
        {labels.shrink}
      </button>
      <label class="mask-growth">
        <input
          type="number"
          class="field"
          aria-label={labels.growth}
          min={1}
          max={MAX_GROWTH}
          value={pixels.value}
          onChange={(event) => {
            const typed = event.currentTarget.valueAsNumber;
            if (Number.isFinite(typed)) pixels.value = Math.min(MAX_GROWTH, Math.max(1, Math.round(typed)));
            event.currentTarget.value = String(pixels.value);
          }}
        />
        px
      </label>
    </div>
  );
}

/** How softly the area ends in the result. */
function Feather() {
  const model = store.room.value.model;
  const value = store.document.value?.settings.feather ?? model?.settings.feather;
  if (typeof value !== "number") return null;
  return (
    <label class="mask-feather" title={labels.featherHelp}>
      {labels.feather}
      <input
        type="range"
        min={0}
        max={MAX_FEATHER}
        step={0.5}
        value={value}
        aria-valuetext={ui.pixels(value)}
        onChange={(event) => setSettings({ feather: event.currentTarget.valueAsNumber })}
      />
    </label>
  );
}

/** Loads a mask file. One of another size is scaled after a question. */
function Load() {
  const input = useRef<HTMLInputElement>(null);
  const unfit = useSignal<{ readonly file: File; readonly message: string } | null>(null);
  const load = async (file: File, fit = false) => {
    const message = await loadMask(file, fit);
    unfit.value = message === null ? null : { file, message };
  };
  const asked = unfit.value;
  return (
    <>
      <div class="row">
        <button type="button" class="small-button" title={labels.loadHelp} onClick={() => input.current?.click()}>
          {labels.load}
        </button>
        <input
          ref={input}
          type="file"
          class="visually-hidden"
          tabIndex={-1}
          accept={PICTURE_TYPES}
          aria-label={labels.load}
          data-testid="mask-file"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            event.currentTarget.value = "";
            if (file) void load(file);
          }}
        />
        <small class="empty">{labels.convention}</small>
      </div>
      {asked !== null && (
        <div class="confirm" role="alertdialog" aria-label={labels.fitQuestion}>
          <p>{labels.fitQuestion}</p>
          <p>
            <small>{asked.message}</small>
          </p>
          <div class="row">
            <button type="button" class="small-button" onClick={() => void load(asked.file, true)}>
              {labels.fit}
            </button>
            <button type="button" class="small-button" onClick={() => (unfit.value = null)}>
              {ui.cancel}
            </button>
          </div>
        </div>
      )}
    </>
  );
}
