import type { DroppedFile as Dropped } from "../start/picture-opener.ts";
import { canReplacePicture } from "../room/actions.ts";
import { Dialog } from "../ui/Dialog.tsx";
import { texts } from "./texts.ts";

const labels = texts.dropped;

/** What to do with a file that was dropped or pasted in a room. */
export function DroppedFile({ dropped }: { readonly dropped: Dropped }) {
  const { name, isRoom, answer } = dropped;
  const replaceable = !isRoom && canReplacePicture();
  return (
    <Dialog title={labels.title(name)} onClose={() => answer(null)}>
      <p>{isRoom ? labels.room : replaceable ? labels.picture : labels.newOnly}</p>
      <div class="row">
        <button type="button" class="small-button is-strong" onClick={() => answer("new")}>
          {isRoom ? labels.openRoom : labels.openPicture}
        </button>
        {replaceable && (
          <button type="button" class="small-button" onClick={() => answer("replace")}>
            {labels.replace}
          </button>
        )}
        <button type="button" class="small-button" onClick={() => answer(null)}>
          {labels.cancel}
        </button>
      </div>
    </Dialog>
  );
}
