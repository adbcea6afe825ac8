import { Dialog } from "../ui/Dialog.tsx";
import { texts as ui } from "../ui/texts.ts";
import { offer } from "./smaller-picture.ts";
import { texts } from "./texts.ts";

const labels = texts.smaller;

/** Asks whether to open a smaller copy of a picture that is too large. Closing it is a no. */
export function SmallerPictureDialog() {
  const now = offer.value;
  if (now === null) return null;
  return (
    <Dialog title={labels.title} onClose={() => now.answer(false)}>
      <p>{labels.question(now)}</p>
      <div class="row">
        <button type="button" class="primary-button" onClick={() => now.answer(true)}>
          {labels.accept(now.smaller)}
        </button>
        <button type="button" class="small-button" onClick={() => now.answer(false)}>
          {ui.cancel}
        </button>
      </div>
    </Dialog>
  );
}
