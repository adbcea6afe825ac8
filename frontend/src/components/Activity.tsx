import type { Activity } from "../activity.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { ChevronIcon } from "./icons.tsx";

const words = texts.activity;

/** Who did what, the newest first. */
export function ActivityList() {
  const { people, person: me } = store.room.value;
  const list = [...store.activity.value].reverse();
  const called = (by: string) =>
    by === "" ? words.nobody : by === me ? words.you : people[by]?.name || texts.people.somebody;
  return (
    <details class="activity settings">
      <summary>
        <ChevronIcon />
        {words.title}
      </summary>
      {list.length === 0 ? (
        <p class="empty">{words.none}</p>
      ) : (
        <ol data-testid="activity">
          {list.map((one) => (
            <li key={one.seq}>
              <i
                class="dot"
                style={{ background: people[one.by]?.colour ?? "var(--line-strong)" }}
                aria-hidden="true"
              />
              <span>
                <strong>{called(one.by)}</strong> {deedOf(one)}
                {words.times(one.times)}
              </span>
            </li>
          ))}
        </ol>
      )}
    </details>
  );
}

function deedOf({ deed, point }: Activity): string {
  return point === null ? words.deeds[deed] : words.point(words.deeds[deed], point);
}
