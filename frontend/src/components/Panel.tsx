import { useEffect, useRef, useState } from "preact/hooks";
import type { End } from "../geometry.ts";
import { colourOf } from "../draw.ts";
import { MAX_PROMPT } from "../protocol.ts";
import type { Setting } from "../protocol.ts";
import { clearMask, loadMask, removeDrag, setPrompt, setSettings } from "../session.ts";
import * as store from "../store.ts";
import type { ShownDrag } from "../store.ts";
import { choose, settleNudge } from "../tools.ts";
import { texts } from "../texts.ts";
import { ArrowIcon, ChevronIcon, CloseIcon } from "./icons.tsx";

export function Panel() {
  return (
    <aside class="panel" aria-label={texts.editor.panel}>
      <PointList />
      <MaskSection />
      <PromptSection />
      <SettingsSection />
    </aside>
  );
}

function PointList() {
  const drags = store.drags.value;
  return (
    <section aria-labelledby="points-title">
      <h2 id="points-title">
        {texts.points.title} {drags.length > 0 && <span class="count">{drags.length}</span>}
      </h2>
      {drags.length === 0 ? (
        <p class="empty">
          {texts.points.none} <span class="keys-only">{texts.points.noneKeys}</span>
        </p>
      ) : (
        <ol class="points" data-testid="points">
          {drags.map((drag) => (
            <PointItem key={drag.id} drag={drag} />
          ))}
        </ol>
      )}
    </section>
  );
}

function PointItem({ drag }: { readonly drag: ShownDrag }) {
  const there = drag.distance < 0.05;
  const selected = store.selected.value?.id === drag.id;
  return (
    <li
      class={`point ${selected ? "is-selected" : ""}`}
      style={{ "--point": colourOf(drag.n) }}
      data-testid={`point-${drag.n}`}
      data-id={drag.id}
      data-handle={drag.handle.join(",")}
      data-target={drag.target.join(",")}
      data-distance={drag.distance.toFixed(2)}
    >
      <span class="point-number" aria-hidden="true">
        {drag.n}
      </span>
      <span class="point-ends">
        <EndButton drag={drag} end="handle" label={texts.points.handle(drag.n, ...drag.handle)} />
        <ArrowIcon />
        <EndButton drag={drag} end="target" label={texts.points.target(drag.n, ...drag.target)} />
      </span>
      {store.editable.value && (
        <button type="button" class="icon-button" aria-label={texts.points.remove(drag.n)} title={texts.points.remove(drag.n)} onClick={() => removeDrag(drag.id)}>
          <CloseIcon />
        </button>
      )}
      <span class="point-way">
        <i style={{ transform: `scaleX(${drag.covered})` }} />
      </span>
      <span class="point-distance">{there ? texts.points.arrived : texts.points.left(drag.distance)}</span>
    </li>
  );
}

/** One end of a drag, to focus and to nudge with the arrow keys. */
function EndButton({ drag, end, label }: { readonly drag: ShownDrag; readonly end: End; readonly label: string }) {
  const [x, y] = drag[end];
  const taken = store.selected.value;
  const select = () => (store.selected.value = { id: drag.id, end });
  return (
    <button
      type="button"
      class="end"
      data-nudge
      aria-label={label}
      aria-pressed={taken?.id === drag.id && taken.end === end}
      onFocus={select}
      onClick={select}
      onBlur={settleNudge}
      onPointerEnter={() => (store.hovered.value = { id: drag.id, end })}
      onPointerLeave={() => (store.hovered.value = null)}
    >
      {texts.points.place(x, y)}
    </button>
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
            <button type="button" class="small-button" onClick={clearMask}>
              {texts.mask.clear}
            </button>
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
  const [text, setText] = useState(prompt);
  const written = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  // What others write, or the server refuses, shows; what is being written here is sent first.
  useEffect(() => setText(prompt), [prompt]);
  const send = (value: string) => {
    clearTimeout(written.current);
    written.current = undefined;
    setPrompt(value.trim());
  };
  const busy = store.running.value || !store.editable.value;
  return (
    <section>
      <h2>
        <label for="prompt">{texts.prompt.title}</label>
      </h2>
      <input
        id="prompt"
        type="text"
        class="field"
        autocomplete="off"
        maxLength={MAX_PROMPT}
        placeholder={texts.prompt.placeholder}
        value={text}
        disabled={busy}
        title={store.running.value ? texts.prompt.busy : ""}
        onInput={(event) => {
          const { value } = event.currentTarget;
          setText(value);
          clearTimeout(written.current);
          written.current = setTimeout(() => send(value), 600);
        }}
        onBlur={() => written.current !== undefined && send(text)}
        onKeyDown={(event) => {
          if (event.key === "Enter") event.currentTarget.blur();
        }}
      />
    </section>
  );
}

interface NumberSetting {
  readonly name: "max_iterations" | "latent_lr" | "mask_weight" | "seed";
  readonly step: string;
  /** Whether it may change while a run goes on. */
  readonly live: boolean;
}

const NUMBERS: readonly NumberSetting[] = [
  { name: "max_iterations", step: "1", live: true },
  { name: "latent_lr", step: "any", live: true },
  { name: "mask_weight", step: "any", live: true },
  { name: "seed", step: "1", live: false },
];

function SettingsSection() {
  const model = store.room.value.model;
  const chosen = store.document.value?.settings ?? {};
  if (model === null) return null;
  const value = (name: string): Setting | undefined => chosen[name] ?? model.settings[name];
  const words = texts.settings;
  const own = Object.keys(chosen);
  const still = store.running.value || !store.editable.value;
  return (
    <details class="settings">
      <summary>
        <ChevronIcon />
        {words.title}
      </summary>
      {model.presets.length > 0 && (
        <label class="setting">
          <span>{words.preset}</span>
          <select
            class="field"
            disabled={still}
            value={String(chosen.preset ?? model.settings.preset ?? "")}
            onChange={(event) => setSettings({ preset: event.currentTarget.value || null })}
          >
            {(model.settings.preset ?? "") === "" && <option value="">{words.modelDefaults}</option>}
            {model.presets.map((preset) => (
              <option key={preset} value={preset}>
                {preset}
              </option>
            ))}
          </select>
          <small>{words.presetHelp}</small>
        </label>
      )}
      {NUMBERS.filter(({ name }) => value(name) !== undefined).map((setting) => (
        <label class="setting" key={setting.name}>
          <span>{words[setting.name]}</span>
          <input
            class="field"
            type="number"
            inputMode="decimal"
            step={setting.step}
            min={model.ranges[setting.name]?.[0]}
            max={model.ranges[setting.name]?.[1]}
            disabled={setting.live ? !store.editable.value : still}
            value={Number(value(setting.name))}
            onChange={(event) => {
              const number = event.currentTarget.valueAsNumber;
              setSettings({ [setting.name]: Number.isFinite(number) ? number : null });
            }}
          />
          <small>{words[`${setting.name}Help`]}</small>
        </label>
      ))}
      {own.length > 0 && (
        <button type="button" class="small-button" disabled={still} onClick={() => setSettings(Object.fromEntries(own.map((name) => [name, null])))}>
          {words.defaults}
        </button>
      )}
      <p class="model">
        {words.model(model.name)}. {model.kind === "builtin" && words.builtin}
      </p>
    </details>
  );
}
