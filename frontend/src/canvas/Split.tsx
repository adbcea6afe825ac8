import { clamp } from "../room/geometry.ts";
import * as store from "../room/store.ts";
import { shownName } from "./CanvasBadge.tsx";
import { texts } from "./texts.ts";

const labels = texts.split;

const STEPS: Readonly<Record<string, number>> = {
  ArrowLeft: -0.02,
  ArrowRight: 0.02,
  ArrowDown: -0.02,
  ArrowUp: 0.02,
  PageDown: -0.1,
  PageUp: 0.1,
  Home: -1,
  End: 1,
};

/** Around the points, as a share of the picture's width: content reaches further than its points. */
const SPLIT_MARGIN = 0.08;

export function toggleSplit(): void {
  store.split.value = store.split.value === null ? leftOfChange() : null;
}

/** Where the divider starts: left of what moves, so that the change is seen at once. In [0, 1] of the width. */
function leftOfChange(): number {
  const width = store.picture.value?.width ?? 1;
  const places = store.drags.value.flatMap(({ start, handle, target }) => [start[0], handle[0], target[0]]);
  if (places.length === 0) return 0.5;
  return clamp(Math.min(...places) / width - SPLIT_MARGIN, 0.02, 0.5);
}

/** The divider between the original and the result, to drag or to move with the arrow keys. */
export function Split() {
  const at = store.splitShown.value;
  const picture = store.picture.value;
  if (at === null || picture === null || store.comparing.value) return null;
  const { scale, x, y } = store.view.value;
  const width = picture.width * scale;
  const top = Math.max(0, y);
  const bottom = Math.min(store.canvasSize.value.height, y + picture.height * scale);
  const percent = Math.round(at * 100);
  const moveTo = (to: number) => (store.split.value = clamp(to, 0, 1));
  return (
    <div
      class="split"
      role="slider"
      tabIndex={0}
      data-testid="split"
      aria-label={labels.title}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
      aria-valuetext={labels.value(percent)}
      style={{ left: `${x + width * at}px`, top: `${top}px`, height: `${bottom - top}px` }}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        event.currentTarget.focus({ preventScroll: true });
        event.preventDefault();
      }}
      onPointerMove={(event) => {
        if (!event.currentTarget.hasPointerCapture(event.pointerId)) return;
        const frame = event.currentTarget.parentElement?.getBoundingClientRect();
        moveTo((event.clientX - (frame?.left ?? 0) - x) / width);
      }}
      onKeyDown={(event) => {
        const step = STEPS[event.key];
        if (step === undefined) return;
        moveTo(at + step);
        event.preventDefault();
      }}
    >
      <span class="split-name split-before" aria-hidden="true">
        {texts.showing.original}
      </span>
      <i />
      <span class="split-name split-after" aria-hidden="true">
        {store.showing.value === "original" ? texts.showing.quickPreview : shownName()}
      </span>
    </div>
  );
}
