import type { End } from "../geometry.ts";
import { colourOf } from "../draw.ts";
import { moveDrag, removeDrag } from "../session.ts";
import * as store from "../store.ts";
import type { ShownDrag } from "../store.ts";
import { duplicate, settleNudge } from "../tools.ts";
import { texts } from "../texts.ts";
import { Chart } from "./Chart.tsx";
import { Typed } from "./Typed.tsx";
import { ArrowIcon, CloseIcon, CopyIcon } from "./icons.tsx";

export function PointList() {
  const drags = store.drags.value;
  return (
    <section aria-labelledby="points-title">
      <h2 id="points-title">
        {texts.points.title} {drags.length > 0 && <span class="count">{drags.length}</span>}
      </h2>
      {drags.length === 0 ? (
        <p class="empty">
          {store.editable.value ? texts.points.none : texts.points.noneYet}{" "}
          {store.editable.value && <span class="keys-only">{texts.points.noneKeys}</span>}
        </p>
      ) : (
        <ol class="points" data-testid="points">
          {drags.map((drag) => (
            <PointItem key={drag.id} drag={drag} />
          ))}
        </ol>
      )}
      <Chart />
    </section>
  );
}

function PointItem({ drag }: { readonly drag: ShownDrag }) {
  const there = drag.distance < 0.05;
  const selected = store.selected.value?.id === drag.id;
  const editable = store.editable.value;
  return (
    <li
      class={`point ${selected ? "is-selected" : ""}`}
      style={{ "--point": colourOf(drag.n) }}
      data-testid={`point-${drag.n}`}
      data-id={drag.id}
      data-handle={drag.handle.join(",")}
      data-target={drag.target.join(",")}
      data-distance={drag.distance.toFixed(2)}
      data-waiting={drag.waiting}
    >
      <span class="point-number" aria-hidden="true">
        {drag.n}
      </span>
      <span class="point-ends">
        <EndButton drag={drag} end="handle" label={texts.points.handle(drag.n, ...drag.handle)} />
        <ArrowIcon />
        <EndButton drag={drag} end="target" label={texts.points.target(drag.n, ...drag.target)} />
      </span>
      {editable && (
        <span class="point-buttons">
          {selected && (
            <button
              type="button"
              class="icon-button"
              aria-label={texts.points.duplicate(drag.n)}
              title={`${texts.points.duplicate(drag.n)} (D)`}
              onClick={() => duplicate(drag.id)}
            >
              <CopyIcon />
            </button>
          )}
          <button
            type="button"
            class="icon-button"
            aria-label={texts.points.remove(drag.n)}
            title={texts.points.remove(drag.n)}
            onClick={() => removeDrag(drag.id)}
          >
            <CloseIcon />
          </button>
        </span>
      )}
      <span class="point-way">
        <i style={{ transform: `scaleX(${drag.covered})` }} />
      </span>
      <span class="point-distance">
        {drag.waiting ? texts.points.waiting : there ? texts.points.arrived : texts.points.left(drag.distance)}
      </span>
      {selected && editable && (
        <span class="coordinates">
          {(["handle", "target"] as const).map((end) => (
            <fieldset key={end}>
              <legend>{texts.points.coordinates[end]}</legend>
              <Coordinate drag={drag} end={end} axis={0} />
              <Coordinate drag={drag} end={end} axis={1} />
            </fieldset>
          ))}
        </span>
      )}
    </li>
  );
}

/** One end of a drag, to focus and to nudge with the arrow keys. */
function EndButton({ drag, end, label }: { readonly drag: ShownDrag; readonly end: End; readonly label: string }) {
  const [x, y] = drag[end];
  const taken = store.selected.value;
  const select = () => (store.selected.value = { id: drag.id, end });
  return (
    <button
      type="button"
      class="end"
      data-nudge
      aria-label={label}
      aria-pressed={taken?.id === drag.id && taken.end === end}
      onFocus={select}
      onClick={select}
      onBlur={settleNudge}
      onPointerEnter={() => (store.hovered.value = { id: drag.id, end })}
      onPointerLeave={() => (store.hovered.value = null)}
    >
      {texts.points.place(x, y)}
    </button>
  );
}

/** A place, typed. */
function Coordinate({ drag, end, axis }: { readonly drag: ShownDrag; readonly end: End; readonly axis: 0 | 1 }) {
  const name = axis === 0 ? "x" : "y";
  const picture = store.picture.value;
  return (
    <label>
      <span aria-hidden="true">{texts.points.coordinates[name]}</span>
      <Typed
        class="field"
        type="number"
        inputMode="decimal"
        step="1"
        min={0}
        max={(axis === 0 ? picture?.width : picture?.height) ?? 0}
        aria-label={texts.points.coordinate(drag.n, end, name)}
        value={Math.round(drag[end][axis] * 10) / 10}
        send={({ valueAsNumber: typed }) => {
          const [x, y] = drag[end];
          if (Number.isFinite(typed)) moveDrag(drag.id, end, axis === 0 ? [typed, y] : [x, typed]);
        }}
      />
    </label>
  );
}
