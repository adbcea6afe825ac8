import { finishNudge } from "../canvas/nudge.ts";
import { duplicateDrag, moveDrag, removeDrag } from "../room/actions.ts";
import type { DragEnd } from "../room/geometry.ts";
import * as store from "../room/store.ts";
import type { ShownDrag } from "../room/store.ts";
import { trials } from "../room/trials.ts";
import { pointColour } from "../ui/colours.ts";
import { DraftInput } from "../ui/DraftInput.tsx";
import { ArrowIcon, CloseIcon, CopyIcon } from "../ui/icons.tsx";
import { isTouch } from "../ui/touch.ts";
import { Chart } from "./later.ts";
import { PinList } from "./Pins.tsx";
import { PointContent } from "./PointContent.tsx";
import { texts } from "./texts.ts";
import { TrialsButton } from "./TrialsButton.tsx";

const labels = texts.points;

/** Pixels within which a point counts as being at its target. */
const AT_TARGET = 0.05;

export function PointList() {
  const drags = store.drags.value;
  return (
    <section aria-labelledby="points-title">
      <h2 id="points-title">
        {labels.title} {drags.length > 0 && <span class="count">{drags.length}</span>}
      </h2>
      {drags.length === 0 ? (
        <NoPoints />
      ) : (
        <ol class="points" data-testid="points">
          {drags.map((drag) => (
            <PointItem key={drag.id} drag={drag} />
          ))}
        </ol>
      )}
      {needsHelp() && (
        <div class="points-help">
          <TrialsButton />
        </div>
      )}
      <PinList />
      <Chart />
    </section>
  );
}

/** Whether the last run did not bring everything where it should be. */
function needsHelp(): boolean {
  if (trials.value !== null) return true;
  const outcome = store.document.value?.run?.outcome;
  if (store.running.value || outcome === null || outcome === undefined) return false;
  return outcome === "exhausted" || store.drags.value.some(({ lost }) => lost);
}

function NoPoints() {
  if (!store.editable.value) return <p class="empty">{labels.emptyForViewers}</p>;
  return (
    <p class="empty">
      {isTouch() ? labels.emptyTouch : labels.empty} <span class="keys-only">{labels.emptyKeys}</span>
    </p>
  );
}

function PointItem({ drag }: { readonly drag: ShownDrag }) {
  const selected = store.selected.value?.id === drag.id;
  return (
    <li
      class={`point ${selected ? "is-selected" : ""}`}
      style={{ "--point": pointColour(drag.number) }}
      data-testid={`point-${drag.number}`}
      data-id={drag.id}
      data-handle={drag.handle.join(",")}
      data-target={drag.target.join(",")}
      data-distance={drag.distance.toFixed(2)}
      data-waiting={drag.waiting}
    >
      <span class="point-number" aria-hidden="true">
        {drag.number}
      </span>
      <span class="point-ends">
        <EndButton drag={drag} end="handle" label={labels.handle(drag.number, ...drag.handle)} />
        <ArrowIcon />
        <EndButton drag={drag} end="target" label={labels.target(drag.number, ...drag.target)} />
      </span>
      {store.editable.value && <PointButtons drag={drag} selected={selected} />}
      <span class="point-progress">
        <i style={{ transform: `scaleX(${drag.progress})` }} />
      </span>
      <span class="point-distance">{distanceText(drag)}</span>
      <PointContent drag={drag} />
      {store.editable.value && selected && <Coordinates drag={drag} />}
    </li>
  );
}

function distanceText(drag: ShownDrag): string {
  if (drag.waiting) return labels.waiting;
  if (store.outsideDrags.value.includes(drag)) return labels.outside;
  if (drag.lost) return labels.left(drag.content ?? drag.distance);
  const arrived = store.document.value?.run?.outcome === "arrived" && !store.unreachedDrags.value.includes(drag);
  return arrived || drag.distance < AT_TARGET ? labels.reached : labels.left(drag.distance);
}

function PointButtons({ drag, selected }: { readonly drag: ShownDrag; readonly selected: boolean }) {
  const [duplicate, remove] = [labels.duplicate(drag.number), labels.remove(drag.number)];
  return (
    <span class="point-buttons">
      {selected && (
        <button
          type="button"
          class="icon-button"
          aria-label={duplicate}
          title={`${duplicate} (D)`}
          onClick={() => duplicateDrag(drag.id)}
        >
          <CopyIcon />
        </button>
      )}
      <button type="button" class="icon-button" aria-label={remove} title={remove} onClick={() => removeDrag(drag.id)}>
        <CloseIcon />
      </button>
    </span>
  );
}

/** One end of a drag, to focus and to move with the arrow keys. */
function EndButton(props: { readonly drag: ShownDrag; readonly end: DragEnd; readonly label: string }) {
  const { drag, end, label } = props;
  const selection = store.selected.value;
  const select = () => (store.selected.value = { id: drag.id, end });
  return (
    <button
      type="button"
      class="end"
      data-nudge
      aria-label={label}
      aria-pressed={selection?.id === drag.id && selection.end === end}
      onFocus={select}
      onClick={select}
      onBlur={finishNudge}
      onPointerEnter={() => (store.hovered.value = { id: drag.id, end })}
      onPointerLeave={() => (store.hovered.value = null)}
    >
      {labels.place(...drag[end])}
    </button>
  );
}

function Coordinates({ drag }: { readonly drag: ShownDrag }) {
  return (
    <span class="coordinates">
      {(["handle", "target"] as const).map((end) => (
        <fieldset key={end}>
          <legend>{labels.ends[end]}</legend>
          <Coordinate drag={drag} end={end} axis="x" />
          <Coordinate drag={drag} end={end} axis="y" />
        </fieldset>
      ))}
    </span>
  );
}

function Coordinate(props: { readonly drag: ShownDrag; readonly end: DragEnd; readonly axis: "x" | "y" }) {
  const { drag, end, axis } = props;
  const picture = store.picture.value;
  const [x, y] = drag[end];
  return (
    <label>
      <span aria-hidden="true">{axis}</span>
      <DraftInput
        class="field"
        type="number"
        inputMode="decimal"
        step="1"
        min={0}
        max={(axis === "x" ? picture?.width : picture?.height) ?? 0}
        aria-label={labels.coordinate(drag.number, end, axis)}
        value={Math.round((axis === "x" ? x : y) * 10) / 10}
        onCommit={({ valueAsNumber }) => {
          if (Number.isFinite(valueAsNumber)) {
            moveDrag(drag.id, end, axis === "x" ? [valueAsNumber, y] : [x, valueAsNumber]);
          }
        }}
      />
    </label>
  );
}
