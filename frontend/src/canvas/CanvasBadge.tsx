import { canKeepPreview, keepPreview } from "../room/keep-preview.ts";
import * as store from "../room/store.ts";
import { texts as roomTexts } from "../room/texts.ts";
import { texts } from "./texts.ts";

const labels = texts.showing;

/** Says what the canvas shows, unless it is just the original. */
export function CanvasBadge() {
  const showing = store.showing.value;
  const quick = store.quickPreview.value;
  if (quick !== null && !quick.behind && store.quickPreviewShown.value) {
    return (
      <p class="badge badge-quick-preview" data-testid="quick-preview">
        <span>
          {labels.quickPreview}. <span class="wide-only">{quickPreviewText()}</span>
        </span>
        {pressedDrag() !== "" && <span data-testid="run-by"> · {pressedDrag()}</span>}
        {canKeepPreview() && (
          <button type="button" aria-label={labels.keep} title={labels.keepHelp} onClick={() => void keepPreview()}>
            {labels.keepShort}
          </button>
        )}
      </p>
    );
  }
  const pressed = pressedDrag();
  if (showing === "original" && !store.comparing.value && pressed === "") return null;
  return (
    <p class={`badge badge-${showing}`} data-testid="showing">
      {showing === "preview" && <i />}
      {shownName()}
      {pressed !== "" && <span data-testid="run-by"> · {pressed}</span>}
    </p>
  );
}

/** Who pressed Drag, if it was someone else. */
function pressedDrag(): string {
  const { people, person: me } = store.room.value;
  const by = store.document.value?.run?.by;
  if (!store.running.value || by === undefined || by === me) return "";
  return labels.pressedDrag(people[by]?.name || roomTexts.people.anonymous);
}

/** The name of what the canvas shows. */
export function shownName(): string {
  const showing = store.showing.value;
  return showing === "moment" ? labels.moment(store.scrubbedIteration.value) : labels[showing];
}

function quickPreviewText(): string {
  if (store.running.value || store.starting.value) return labels.quickPreviewRunning;
  return store.editable.value ? labels.quickPreviewIdle : labels.quickPreviewViewer;
}
