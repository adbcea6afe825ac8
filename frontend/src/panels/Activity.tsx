import type { Activity } from "../room/activity.ts";
import * as store from "../room/store.ts";
import { texts as roomTexts } from "../room/texts.ts";
import { ChevronIcon } from "../ui/icons.tsx";
import { texts } from "./texts.ts";

const words = texts.activity;

/** Who did what, newest first. */
export function ActivityList() {
  const { people } = store.room.value;
  const list = store.activity.value.toReversed();
  return (
    <details class="activity settings">
      <summary>
        <ChevronIcon />
        {words.title}
      </summary>
      {list.length === 0 ? (
        <p class="empty">{words.empty}</p>
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
                <strong>{nameOf(one.by)}</strong> {descriptionOf(one)}
              </span>
            </li>
          ))}
        </ol>
      )}
    </details>
  );
}

function nameOf(person: string): string {
  const { people, person: me } = store.room.value;
  if (person === "") return words.run;
  return person === me ? words.you : people[person]?.name || roomTexts.people.anonymous;
}

function descriptionOf({ kind, point, times }: Activity): string {
  const what = words.kinds[kind];
  return (point === null ? what : words.point(what, point)) + words.times(times);
}
