import { signal } from "@preact/signals";
import * as store from "../room/store.ts";
import { canTry, trials } from "../room/trials.ts";
import { variantsOf } from "../room/variants.ts";
import { texts } from "./texts.ts";

const labels = texts.trials;

/** Whether the dialog that it opens is shown. */
export const trialsShown = signal(false);

/** Offers to run the same drags with other settings, or shows how that is going. */
export function TrialsButton() {
  const model = store.room.value.model;
  if (model === null || !store.editable.value || variantsOf(model, {}).length === 0) return null;
  return (
    <button
      type="button"
      class="small-button"
      disabled={trials.value === null && !canTry()}
      title={labels.openHelp}
      onClick={() => (trialsShown.value = true)}
    >
      {trials.value === null ? labels.open : labels.openAgain}
    </button>
  );
}
