import { clamp } from "../geometry.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";

const words = texts.split;

export function toggleSplit(): void {
  store.split.value = store.split.value === null ? 0.5 : null;
}

/** The bar between the uploaded picture and the result, to pull or to move with the arrow keys. */
export function Split() {
  const at = store.splitShown.value;
  const picture = store.picture.value;
  if (at === null || picture === null || store.comparing.value) return null;
  const { scale, x, y } = store.view.value;
  const bounds = store.canvasSize.value;
  const width = picture.width * scale;
  const top = Math.max(0, y);
  const move = (to: number) => (store.split.value = clamp(to, 0, 1));
  return (
    <div
      class="split"
      role="slider"
      tabIndex={0}
      data-testid="split"
      aria-label={words.title}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(at * 100)}
      aria-valuetext={words.value(Math.round(at * 100))}
      style={{
        left: `${x + width * at}px`,
        top: `${top}px`,
        height: `${Math.min(bounds.height, y + picture.height * scale) - top}px`,
      }}
      onPointerDown={(event) => {
        event.currentTarget.setPointerCapture(event.pointerId);
        event.currentTarget.focus({ preventScroll: true });
        event.preventDefault();
      }}
      onPointerMove={(event) => {
        if (!event.currentTarget.hasPointerCapture(event.pointerId)) return;
        const frame = event.currentTarget.parentElement?.getBoundingClientRect();
        move((event.clientX - (frame?.left ?? 0) - x) / width);
      }}
      onKeyDown={(event) => {
        const step = {
          ArrowLeft: -0.02,
          ArrowRight: 0.02,
          ArrowDown: -0.02,
          ArrowUp: 0.02,
          PageDown: -0.1,
          PageUp: 0.1,
          Home: -1,
          End: 1,
        }[event.key];
        if (step === undefined) return;
        move(at + step);
        event.preventDefault();
      }}
    >
      <span class="split-name split-before" aria-hidden="true">
        {words.before}
      </span>
      <i />
      <span class="split-name split-after" aria-hidden="true">
        {after()}
      </span>
    </div>
  );
}

/** What lies beside the original. */
function after(): string {
  const showing = store.showing.value;
  if (showing === "moment")
    return texts.hints.moment(store.room.value.moments.find(({ id }) => id === store.scrub.value?.id)?.iteration ?? 0);
  return showing === "original" ? words.guess : texts.hints[showing];
}
