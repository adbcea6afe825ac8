import { setSettings } from "../room/actions.ts";
import type { ModelInfo } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { ChevronIcon } from "../ui/icons.tsx";
import { Option } from "../ui/Option.tsx";
import { AdvancedSettings } from "./later.ts";
import { texts } from "./texts.ts";
import { TrialsButton } from "./TrialsButton.tsx";

const labels = texts.settings;

export function SettingsSection() {
  const model = store.room.value.model;
  if (model === null || !store.editable.value) return null;
  const changed = store.document.value?.settings ?? {};
  return (
    <section class="settings" aria-labelledby="settings-title">
      <h2 id="settings-title">{labels.title}</h2>
      {model.presets.length > 0 && <Presets model={model} chosen={String(changed.preset ?? "")} />}
      <TrialsButton />
      <details>
        <summary>
          <ChevronIcon />
          {labels.advanced}
          {Object.keys(changed).some((name) => name !== "preset") && <i class="changed" />}
        </summary>
        <AdvancedSettings model={model} changed={changed} />
      </details>
    </section>
  );
}

function Presets({ model, chosen }: { readonly model: ModelInfo; readonly chosen: string }) {
  return (
    <div class="presets" role="radiogroup" aria-labelledby="settings-title">
      {["", ...model.presets].map((preset) => (
        <Option
          key={preset}
          type="radio"
          group="preset"
          name={labels.presets[preset]?.[0] ?? preset}
          detail={labels.presets[preset]?.[1]}
          checked={chosen === preset}
          disabled={store.running.value}
          onChoose={() => setSettings({ preset: preset || null })}
        >
          {model.unsuitable[preset] && <small class="warning">{labels.unsuitable(model.unsuitable[preset])}</small>}
        </Option>
      ))}
    </div>
  );
}
