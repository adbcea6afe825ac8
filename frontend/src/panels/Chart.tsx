import * as store from "../room/store.ts";
import { pointColour } from "../ui/colours.ts";
import { texts } from "./later-texts.ts";

const WIDTH = 280;
const HEIGHT = 64;
/** Fewer measurements make no chart. */
const MIN_MEASUREMENTS = 3;

/** How far every point still had to go, by iteration: lines that should fall to zero. */
export function Chart() {
  const chart = store.room.value.chart;
  const drags = store.drags.value;
  const [first, last] = [chart[0], chart.at(-1)];
  if (first === undefined || last === undefined || chart.length < MIN_MEASUREMENTS) return null;
  const highest = Math.max(1, ...chart.flatMap(({ distances }) => drags.map(({ id }) => distances[id] ?? 0)));
  const span = Math.max(1, last.iteration - first.iteration);
  const placesOf = (id: string) =>
    chart.flatMap(({ iteration, distances }) => {
      const left = distances[id];
      if (left === undefined) return [];
      const x = ((iteration - first.iteration) / span) * WIDTH;
      const y = 2 + (1 - left / highest) * (HEIGHT - 4);
      return [`${x.toFixed(1)},${y.toFixed(1)}`];
    });
  const lines = drags.map(({ id, number }) =>
    texts.chart.line(number, first.distances[id] ?? 0, last.distances[id] ?? 0),
  );
  return (
    <div class="chart" data-testid="chart" role="img" aria-label={`${texts.chart.title}. ${lines.join(". ")}`}>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <path class="chart-ground" d={`M0 ${HEIGHT - 1}H${WIDTH}`} />
        {drags.map(({ id, number }) => (
          <polyline key={id} style={{ stroke: pointColour(number) }} points={placesOf(id).join(" ")} />
        ))}
      </svg>
      <p aria-hidden="true">
        <span>{texts.chart.title}</span>
        <span>{last.iteration}</span>
      </p>
    </div>
  );
}
