import { useSignal } from "@preact/signals";
import type { DroppedFile as Dropped } from "../start/picture-opener.ts";
import { Dialog } from "../ui/Dialog.tsx";
import { texts } from "./texts.ts";

const labels = texts.dropped;

/** What to do with a file that was dropped or pasted in a room. */
export function DroppedFile({ dropped }: { readonly dropped: Dropped }) {
  const open = useSignal(true);
  const { name, isRoom, answer } = dropped;
  return (
    <Dialog open={open} title={labels.title(name)} onClose={() => answer(null)}>
      <div class="dropped-file">
        <p>{isRoom ? labels.room : labels.picture}</p>
        <div class="row">
          <button type="button" class="small-button is-strong" onClick={() => answer("new")}>
            {isRoom ? labels.openRoom : labels.openPicture}
          </button>
          <button type="button" class="small-button" onClick={() => answer(null)}>
            {labels.cancel}
          </button>
        </div>
      </div>
    </Dialog>
  );
}
