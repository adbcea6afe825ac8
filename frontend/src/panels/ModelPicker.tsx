import { useSignal } from "@preact/signals";
import { useEffect, useId } from "preact/hooks";
import { setModel } from "../room/actions.ts";
import { fetchModels } from "../room/api.ts";
import { messageOf } from "../room/http.ts";
import type { CatalogEntry, LoraChoice, ModelCatalog, ModelChoice } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { Dialog } from "../ui/Dialog.tsx";
import { Option } from "../ui/Option.tsx";
import { texts } from "./model-picker-texts.ts";

const SERVERS: ModelChoice = { name: "", loras: [], vae: "" };

/** Chooses what the room edits with. */
export function ModelPicker({ onClose }: { readonly onClose: () => void }) {
  const catalog = useSignal<ModelCatalog | null>(null);
  const problem = useSignal("");
  useEffect(() => {
    fetchModels()
      .then((found) => (catalog.value = found))
      .catch((error: unknown) => (problem.value = texts.failed(messageOf(error))));
  }, []);
  return (
    <Dialog title={texts.title} onClose={onClose}>
      {catalog.value === null ? (
        <p>{problem.value || texts.loading}</p>
      ) : (
        <Choice catalog={catalog.value} onClose={onClose} />
      )}
    </Dialog>
  );
}

function Choice({ catalog, onClose }: { readonly catalog: ModelCatalog; readonly onClose: () => void }) {
  const chosen = useSignal<ModelChoice>(store.document.value?.model ?? SERVERS);
  const running = store.running.value;
  const of = (kind: CatalogEntry["kind"]) => catalog.entries.filter((entry) => entry.kind === kind && !entry.problem);
  const needsVae = catalog.entries.some((entry) => entry.name === chosen.value.name && entry.needs_vae);
  const unusable = catalog.entries.filter(({ problem }) => problem);
  const models = [
    { name: "", label: texts.default(catalog.default), detail: "" },
    ...of("model").map((entry) => ({ name: entry.name, label: entry.name, detail: detailOf(entry) })),
  ];
  const hasMore = of("lora").length > 0 || of("vae").length > 0;
  const hasChoice = models.length > 1 || hasMore;
  const set = (change: Partial<ModelChoice>) => (chosen.value = { ...chosen.value, ...change });
  return (
    <form
      class="stack"
      data-testid="model-picker"
      onSubmit={(event) => {
        event.preventDefault();
        setModel(chosen.value);
        onClose();
      }}
    >
      <fieldset class="variants">
        <legend class={hasMore ? "" : "visually-hidden"}>{texts.model}</legend>
        {models.map(({ name, label, detail }) => (
          <Option
            key={name}
            type="radio"
            group="model"
            name={label}
            detail={detail}
            checked={chosen.value.name === name}
            onChoose={() => set({ name })}
          />
        ))}
      </fieldset>
      {of("model").length < 2 && (
        <p class="empty">
          {texts.none} <code>{texts.noneOption}</code> {texts.noneFolder}
        </p>
      )}
      {of("lora").length > 0 && <Loras entries={of("lora")} chosen={chosen.value.loras} set={set} />}
      {(of("vae").length > 0 || needsVae) && (
        <Vae entries={of("vae")} chosen={chosen.value.vae} needed={needsVae} set={set} />
      )}
      {unusable.length > 0 && (
        <details>
          <summary>{texts.unusable}</summary>
          <ul>
            {unusable.map(({ name, problem }) => (
              <li key={name}>
                {name}: {problem}
              </li>
            ))}
          </ul>
        </details>
      )}
      {hasChoice && <p>{running ? texts.running : texts.explanation}</p>}
      {hasChoice && (
        <div class="row">
          <button type="submit" class="primary-button" disabled={running}>
            {texts.apply}
          </button>
        </div>
      )}
    </form>
  );
}

type Set = (change: Partial<ModelChoice>) => void;

function Loras(props: {
  readonly entries: readonly CatalogEntry[];
  readonly chosen: readonly LoraChoice[];
  readonly set: Set;
}) {
  const others = (name: string) => props.chosen.filter((lora) => lora.name !== name);
  return (
    <fieldset class="variants">
      <legend>{texts.loras}</legend>
      {props.entries.map(({ name, architecture }) => {
        const lora = props.chosen.find((one) => one.name === name);
        const put = (weight: number) => props.set({ loras: [...others(name), { name, weight }] });
        return (
          <div key={name} class="row">
            <Option
              type="checkbox"
              name={name}
              detail={architecture}
              checked={lora !== undefined}
              onChoose={() => (lora === undefined ? put(1) : props.set({ loras: others(name) }))}
            />
            {lora && (
              <input
                type="number"
                aria-label={texts.weight(name)}
                min={-10}
                max={10}
                step={0.05}
                value={lora.weight}
                onChange={(event) => put(event.currentTarget.valueAsNumber || 0)}
              />
            )}
          </div>
        );
      })}
    </fieldset>
  );
}

function Vae(props: {
  readonly entries: readonly CatalogEntry[];
  readonly chosen: string;
  /** The model has none of its own. */
  readonly needed: boolean;
  readonly set: Set;
}) {
  const id = useId();
  return (
    <p>
      <label for={id}>{texts.vae}</label>{" "}
      <select
        id={id}
        required={props.needed}
        value={props.chosen}
        onChange={(event) => props.set({ vae: event.currentTarget.value })}
      >
        <option value="">{props.needed ? texts.chooseVae : texts.ownVae}</option>
        {props.entries.map(({ name }) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </p>
  );
}

/** What kind of model it is, how large, and what it is good for. */
function detailOf({ architecture, bytes, info, needs_vae }: CatalogEntry): string {
  const goodFor = texts.goodFor[info?.kind ?? ""] ?? "";
  return [architecture, texts.size(bytes), goodFor, needs_vae && texts.needsVae].filter(Boolean).join(" · ");
}
