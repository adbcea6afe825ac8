import * as store from "../store.ts";
import { zoom, zoomToActualSize, zoomToFit } from "../tools.ts";
import { texts } from "../texts.ts";
import { FitIcon, MinusIcon, PlusIcon } from "./icons.tsx";

const words = texts.zoom;
/** One press of a button or key. */
export const STEP = 1.25;

export function Zoom() {
  const percent = Math.round(store.view.value.scale * 100);
  return (
    <div class="zoom" role="group" aria-label={words.title}>
      <button type="button" aria-label={words.out} title={`${words.out} (−)`} onClick={() => zoom(1 / STEP)}>
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
        {percent} %
      </button>
      <button type="button" aria-label={words.in} title={`${words.in} (+)`} onClick={() => zoom(STEP)}>
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
