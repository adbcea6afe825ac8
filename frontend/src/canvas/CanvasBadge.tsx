import { canKeepPreview, keepPreview } from "../room/keep-preview.ts";
import * as store from "../room/store.ts";
import { texts } from "./texts.ts";

const labels = texts.showing;

/** Says what the canvas shows, unless it is just the original. */
export function CanvasBadge() {
  const showing = store.showing.value;
  const quick = store.quickPreview.value;
  if (quick !== null && !quick.behind && store.quickPreviewShown.value) {
    return (
      <p class="badge badge-quick-preview" data-testid="quick-preview">
        <span>{quickPreviewText()}</span>
        {canKeepPreview() && (
          <button type="button" aria-label={labels.keep} title={labels.keepHelp} onClick={() => void keepPreview()}>
            {labels.keepShort}
          </button>
        )}
      </p>
    );
  }
  if (showing === "original" && !store.comparing.value) return null;
  return (
    <p class={`badge badge-${showing}`} data-testid="showing">
      {showing === "preview" && <i />}
      {shownName()}
    </p>
  );
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
