import { isUndone } from "../room/activity.ts";
import type { Activity } from "../room/activity.ts";
import * as store from "../room/store.ts";
import { texts as roomTexts } from "../room/texts.ts";
import { texts } from "./later-texts.ts";

const labels = texts.activity;

/** Who did what, newest first. */
export function Activities() {
  const { people } = store.room.value;
  const list = store.activity.value.filter(({ kind }) => labels.kinds[kind] !== undefined).toReversed();
  if (list.length === 0) return <p class="empty">{labels.empty}</p>;
  return (
    <ol data-testid="activity">
      {list.map((one) => (
        <li key={one.seq} class={isUndone(one) ? "is-undone" : ""}>
          <i class="dot" style={{ background: people[one.by]?.colour ?? "var(--line-strong)" }} aria-hidden="true" />
          <span>
            <strong>{nameOf(one.by)}</strong> <span class="activity-what">{descriptionOf(one)}</span>
            {isUndone(one) && ` (${labels.undone})`}
          </span>
        </li>
      ))}
    </ol>
  );
}

function nameOf(person: string): string {
  const { people, person: me } = store.room.value;
  if (person === "") return labels.run;
  return person === me ? labels.you : people[person]?.name || roomTexts.people.anonymous;
}

function descriptionOf({ kind, point, times }: Activity): string {
  const what = labels.kinds[kind];
  return (point === null ? what : labels.point(what, point)) + labels.times(times);
}
