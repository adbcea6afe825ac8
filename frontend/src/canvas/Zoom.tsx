import { ZOOM_STEP } from "../room/geometry.ts";
import * as store from "../room/store.ts";
import { FitIcon, MinusIcon, PlusIcon } from "../ui/icons.tsx";
import { zoom, zoomToActualSize, zoomToFit } from "./camera.ts";
import { texts } from "./texts.ts";

const labels = texts.zoom;

export function Zoom() {
  const percent = Math.round(store.view.value.scale * 100);
  return (
    <div class="zoom" role="group" aria-label={labels.title}>
      <button type="button" aria-label={labels.out} title={`${labels.out} (−)`} onClick={() => zoom(1 / ZOOM_STEP)}>
        <MinusIcon />
      </button>
      <button
        type="button"
        class="zoom-now"
        aria-label={labels.actual(percent)}
        title={`${labels.actualHelp} (1)`}
        data-testid="zoom"
        onClick={zoomToActualSize}
      >
        {labels.percent(percent)}
      </button>
      <button type="button" aria-label={labels.in} title={`${labels.in} (+)`} onClick={() => zoom(ZOOM_STEP)}>
        <PlusIcon />
      </button>
      <button
        type="button"
        aria-label={labels.fit}
        title={`${labels.fit} (0)`}
        aria-pressed={store.camera.value === null}
        onClick={zoomToFit}
      >
        <FitIcon />
      </button>
    </div>
  );
}
