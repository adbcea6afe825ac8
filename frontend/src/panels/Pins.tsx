import { removePin } from "../room/actions.ts";
import * as store from "../room/store.ts";
import { CloseIcon, PinIcon } from "../ui/icons.tsx";
import { texts } from "./texts.ts";

const labels = texts.pins;

/** The pins, if there are any. */
export function PinList() {
  const pins = store.pins.value;
  if (pins.length === 0) return null;
  return (
    <>
      <h3 class="pins-title">{labels.title}</h3>
      <ul class="pins" data-testid="pins">
        {pins.map(({ id, number, at }) => (
          <li key={id} class={store.selectedPin.value === id ? "is-selected" : ""} data-at={at.join(",")}>
            <button
              type="button"
              aria-pressed={store.selectedPin.value === id}
              onClick={() => {
                store.selected.value = null;
                store.selectedPin.value = id;
              }}
            >
              <PinIcon />
              {labels.place(number, ...at)}
            </button>
            {store.editable.value && (
              <button
                type="button"
                class="icon-button"
                aria-label={labels.remove(number)}
                onClick={() => removePin(id)}
              >
                <CloseIcon />
              </button>
            )}
          </li>
        ))}
      </ul>
    </>
  );
}
