import { useEffect } from "preact/hooks";
import { follow, followViews } from "../room/follow-view.ts";
import * as store from "../room/store.ts";
import { texts as roomTexts } from "../room/texts.ts";
import { texts } from "./texts.ts";

const labels = texts.people;

/** Says whose view is followed. */
export function Following() {
  useEffect(followViews, []);
  const person = store.followed.value;
  if (person === null) return null;
  const { name = "", colour = "" } = store.room.value.people[person] ?? {};
  return (
    <p class="following" style={{ "--person": colour }} data-testid="following">
      <span role="status">{labels.following(name || roomTexts.people.anonymous)}</span>
      <button type="button" class="small-button" onClick={() => follow(null)}>
        {labels.unfollow}
      </button>
    </p>
  );
}
