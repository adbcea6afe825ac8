import { useId } from "preact/hooks";
import { setSettings } from "../room/actions.ts";
import type { ModelInfo, Setting } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { DraftInput } from "../ui/DraftInput.tsx";
import { ResetIcon } from "../ui/icons.tsx";
import { texts } from "./later-texts.ts";

const labels = texts.settings;

const GROUPS: readonly (readonly [group: keyof typeof labels.groups, names: readonly string[]])[] = [
  [
    "drag",
    [
      "warp_share",
      "latent_lr",
      "latent_optimizer",
      "max_iterations",
      "mask_weight",
      "arrival_distance",
      "arrival_check",
      "supervision",
      "supervision_template",
      "supervision_step",
      "supervision_radius",
      "steps_per_tracking",
      "tracking_radius",
      "alternation",
      "background",
      "detail",
      "feather",
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
  ["preview", ["preview_every", "preview_side"]],
];

/** Everything but the preset; `changed` are the settings that this room has changed. */
export function AdvancedSettings(props: {
  readonly model: ModelInfo;
  readonly changed: Readonly<Record<string, Setting>>;
}) {
  const { model, changed } = props;
  const running = store.running.value;
  const names = Object.keys(changed);
  return (
    <>
      {running && <p class="empty">{labels.locked}</p>}
      {GROUPS.map(([group, all]) => {
        const known = all.filter((name) => model.settings[name] !== undefined);
        return (
          known.length > 0 && (
            <fieldset key={group} class="setting-group">
              <legend>{labels.groups[group]}</legend>
              {known.map((name) => (
                <SettingRow
                  key={name}
                  name={name}
                  model={model}
                  changed={changed[name]}
                  disabled={running && !model.live.includes(name)}
                />
              ))}
            </fieldset>
          )
        );
      })}
      {names.length > 0 && (
        <button
          type="button"
          class="small-button"
          disabled={running}
          onClick={() => setSettings(Object.fromEntries(names.map((name) => [name, null])))}
        >
          {labels.resetAll}
        </button>
      )}
    </>
  );
}

interface SettingProps {
  readonly name: string;
  readonly model: ModelInfo;
  /** The room's value, if it has changed it. */
  readonly changed: Setting | undefined;
  readonly disabled: boolean;
}

function SettingRow(props: SettingProps) {
  const { name, changed, disabled } = props;
  const id = useId();
  const [title, symbol, help] = labels.names[name] ?? [name, "", ""];
  return (
    <div class="setting">
      <label for={id}>
        {title} {symbol && <var title={labels.symbol(symbol)}>{symbol}</var>}
      </label>
      {changed !== undefined && (
        <button
          type="button"
          class="icon-button"
          aria-label={labels.reset(title)}
          title={labels.reset(title)}
          disabled={disabled}
          onClick={() => setSettings({ [name]: null })}
        >
          <ResetIcon />
        </button>
      )}
      <SettingInput {...props} id={id} />
      <small id={`${id}-help`}>{help}</small>
    </div>
  );
}

function SettingInput({ id, name, model, changed, disabled }: SettingProps & { readonly id: string }) {
  const value = changed ?? model.settings[name];
  if (typeof value === "boolean") {
    return (
      <input
        id={id}
        type="checkbox"
        class="check"
        aria-describedby={`${id}-help`}
        checked={value}
        disabled={disabled}
        onChange={(event) => setSettings({ [name]: event.currentTarget.checked })}
      />
    );
  }
  const choices = model.choices[name];
  if (choices !== undefined) {
    return (
      <select
        id={id}
        class="field"
        aria-describedby={`${id}-help`}
        disabled={disabled}
        value={String(value)}
        onChange={(event) => setSettings({ [name]: event.currentTarget.value })}
      >
        {choices.map((choice) => (
          <option key={choice} value={choice}>
            {labels.choices[name]?.[choice] ?? choice}
          </option>
        ))}
      </select>
    );
  }
  const [min, max] = model.ranges[name] ?? [undefined, undefined];
  return (
    <DraftInput
      id={id}
      class="field"
      type="number"
      inputMode="decimal"
      aria-describedby={`${id}-help`}
      step={Number.isInteger(model.settings[name]) && Number.isInteger(min) ? "1" : "any"}
      min={min}
      max={max}
      disabled={disabled}
      value={Number(value)}
      onCommit={({ valueAsNumber }) => setSettings({ [name]: Number.isFinite(valueAsNumber) ? valueAsNumber : null })}
    />
  );
}
