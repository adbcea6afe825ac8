import * as store from "../room/store.ts";
import { FitIcon, MinusIcon, PlusIcon } from "../ui/icons.tsx";
import { ZOOM_STEP, zoom, zoomToActualSize, zoomToFit } from "./camera.ts";
import { texts } from "./texts.ts";

const words = texts.zoom;

export function Zoom() {
  const percent = Math.round(store.view.value.scale * 100);
  return (
    <div class="zoom" role="group" aria-label={words.title}>
      <button type="button" aria-label={words.out} title={`${words.out} (−)`} onClick={() => zoom(1 / ZOOM_STEP)}>
        <MinusIcon />
      </button>
      <button
        type="button"
        class="zoom-now"
        aria-label={words.actual(percent)}
        title={`${words.actualHelp} (1)`}
        data-testid="zoom"
        onClick={zoomToActualSize}
      >
        {words.percent(percent)}
      </button>
      <button type="button" aria-label={words.in} title={`${words.in} (+)`} onClick={() => zoom(ZOOM_STEP)}>
        <PlusIcon />
      </button>
      <button
        type="button"
        aria-label={words.fit}
        title={`${words.fit} (0)`}
        aria-pressed={store.camera.value === null}
        onClick={zoomToFit}
      >
        <FitIcon />
      </button>
    </div>
  );
}
