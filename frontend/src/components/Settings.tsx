import { useId } from "preact/hooks";
import type { ModelInfo, Setting } from "../protocol.ts";
import { setSettings } from "../session.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { Typed } from "./Typed.tsx";
import { ChevronIcon, ResetIcon } from "./icons.tsx";

const words = texts.settings;

/** What may change while a run goes on; the others wait for its end. */
const LIVE: ReadonlySet<string> = new Set([
  "arrival_distance",
  "latent_lr",
  "mask_weight",
  "max_iterations",
  "preview_side",
  "supervision_radius",
  "tracking_radius",
  "warp_share",
]);

const GROUPS: readonly (readonly [group: keyof typeof words.groups, names: readonly string[]])[] = [
  [
    "drag",
    [
      "warp_share",
      "latent_lr",
      "max_iterations",
      "mask_weight",
      "arrival_distance",
      "supervision_radius",
      "tracking_radius",
    ],
  ],
  [
    "picture",
    [
      "lora_steps",
      "lora_rank",
      "lora_lr",
      "lora_batch",
      "lora_copies",
      "inversion_strength",
      "ddim_steps",
      "reference_control",
      "seed",
    ],
  ],
  ["show", ["preview_every", "preview_side"]],
];

export function SettingsSection() {
  const model = store.room.value.model;
  if (model === null || !store.editable.value) return null;
  const chosen = store.document.value?.settings ?? {};
  const own = Object.keys(chosen);
  const still = store.running.value;
  return (
    <section class="settings" aria-labelledby="settings-title">
      <h2 id="settings-title">{words.title}</h2>
      {model.presets.length > 0 && <Presets model={model} chosen={String(chosen.preset ?? "")} disabled={still} />}
      <details>
        <summary>
          <ChevronIcon />
          {words.advanced}
          {own.some((name) => name !== "preset") && <i class="changed" />}
        </summary>
        {still && <p class="empty">{words.waits}</p>}
        {GROUPS.map(([group, names]) => {
          const known = names.filter((name) => model.settings[name] !== undefined);
          return (
            known.length > 0 && (
              <fieldset key={group} class="setting-group">
                <legend>{words.groups[group]}</legend>
                {known.map((name) => (
                  <SettingRow
                    key={name}
                    name={name}
                    model={model}
                    chosen={chosen[name]}
                    disabled={still && !LIVE.has(name)}
                  />
                ))}
              </fieldset>
            )
          );
        })}
        {own.length > 0 && (
          <button
            type="button"
            class="small-button"
            disabled={still}
            onClick={() => setSettings(Object.fromEntries(own.map((name) => [name, null])))}
          >
            {words.defaults}
          </button>
        )}
      </details>
    </section>
  );
}

function Presets({
  model,
  chosen,
  disabled,
}: {
  readonly model: ModelInfo;
  readonly chosen: string;
  readonly disabled: boolean;
}) {
  return (
    <div class="presets" role="radiogroup" aria-labelledby="settings-title">
      {["", ...model.presets].map((preset) => (
        <label key={preset} class="preset">
          <input
            type="radio"
            name="preset"
            value={preset}
            checked={chosen === preset}
            disabled={disabled}
            onChange={() => setSettings({ preset: preset || null })}
          />
          <span>
            <strong>{words.presets[preset]?.[0] ?? preset}</strong>
            <small>{words.presets[preset]?.[1]}</small>
          </span>
        </label>
      ))}
    </div>
  );
}

function SettingRow(props: {
  readonly name: string;
  readonly model: ModelInfo;
  /** As set in this room. */
  readonly chosen: Setting | undefined;
  readonly disabled: boolean;
}) {
  const { name, model, chosen, disabled } = props;
  const id = useId();
  const [title, symbol, help] = words.names[name] ?? [name, "", ""];
  const value = chosen ?? model.settings[name];
  const [least, most] = model.ranges[name] ?? [undefined, undefined];
  return (
    <div class="setting">
      <label for={id}>
        {title} {symbol && <var title={words.symbol(symbol)}>{symbol}</var>}
      </label>
      {chosen !== undefined && (
        <button
          type="button"
          class="icon-button"
          aria-label={words.reset(title)}
          title={words.reset(title)}
          disabled={disabled}
          onClick={() => setSettings({ [name]: null })}
        >
          <ResetIcon />
        </button>
      )}
      {typeof value === "boolean" ? (
        <input
          id={id}
          type="checkbox"
          class="check"
          aria-describedby={`${id}-help`}
          checked={value}
          disabled={disabled}
          onChange={(event) => setSettings({ [name]: event.currentTarget.checked })}
        />
      ) : (
        <Typed
          id={id}
          class="field"
          type="number"
          inputMode="decimal"
          aria-describedby={`${id}-help`}
          step={Number.isInteger(model.settings[name]) && Number.isInteger(least) ? "1" : "any"}
          min={least}
          max={most}
          disabled={disabled}
          value={Number(value)}
          send={({ valueAsNumber: number }) => setSettings({ [name]: Number.isFinite(number) ? number : null })}
        />
      )}
      <small id={`${id}-help`}>{help}</small>
    </div>
  );
}
