import * as store from "../room/store.ts";
import type { ShownDrag } from "../room/store.ts";
import { texts } from "./texts.ts";

const labels = texts.points;

/** Pixels by which the picture may disagree with the tracked point before that is said. */
const DISAGREEMENT = 8;

/** What the picture shows of a point's content: that it did not follow, or how far it really is. */
export function PointContent({ drag }: { readonly drag: ShownDrag }) {
  if (drag.lost) {
    const help = store.editable.value && !store.running.value;
    return (
      <p class="point-content is-lost" role="status" data-testid={`lost-${drag.number}`}>
        {labels.lost} {help && <span>{labels.lostHelp}</span>}
      </p>
    );
  }
  if (drag.content === null || Math.abs(drag.content - drag.distance) < DISAGREEMENT) return null;
  return <p class="point-content">{labels.shown(drag.content)}</p>;
}
