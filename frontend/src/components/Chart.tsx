import { colourOf } from "../draw.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";

const WIDTH = 280;
const HEIGHT = 64;

/** How far every point still had to go, iteration by iteration: lines that should fall to the ground. */
export function Chart() {
  const chart = store.room.value.chart;
  const drags = store.drags.value;
  const first = chart[0];
  const last = chart.at(-1);
  if (first === undefined || last === undefined || chart.length < 3) return null;
  const highest = Math.max(1, ...chart.flatMap(({ distances }) => drags.map(({ id }) => distances[id] ?? 0)));
  const span = Math.max(1, last.iteration - first.iteration);
  const lines = drags.map((drag) => ({
    drag,
    places: chart.flatMap(({ iteration, distances }) => {
      const left = distances[drag.id];
      return left === undefined
        ? []
        : [[((iteration - first.iteration) / span) * WIDTH, 2 + (1 - left / highest) * (HEIGHT - 4)] as const];
    }),
  }));
  const spoken = drags
    .map(({ id, n }) => texts.chart.spoken(n, first.distances[id] ?? 0, last.distances[id] ?? 0))
    .join(". ");
  return (
    <div class="chart" data-testid="chart" role="img" aria-label={`${texts.chart.title}. ${spoken}`}>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <path class="chart-ground" d={`M0 ${HEIGHT - 1}H${WIDTH}`} />
        {lines.map(({ drag, places }) => (
          <polyline
            key={drag.id}
            style={{ stroke: colourOf(drag.n) }}
            points={places.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ")}
          />
        ))}
      </svg>
      <p aria-hidden="true">
        <span>{texts.chart.title}</span>
        <span>{last.iteration}</span>
      </p>
    </div>
  );
}
