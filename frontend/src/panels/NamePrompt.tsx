import { useRef, useState } from "preact/hooks";
import { askedForName, displayName } from "../room/display-name.ts";
import { setDisplayName } from "../room/presence.ts";
import { MAX_NAME } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { texts } from "./texts.ts";

const labels = texts.people;

/** Asks someone who has joined others for a name, once in this browser. */
export function NamePrompt() {
  const { people, person: me } = store.room.value;
  const mine = people[me];
  const joinedOthers = useRef<boolean | null>(null);
  // The first person in a room has joined no one.
  if (mine !== undefined) joinedOthers.current ??= Object.keys(people).length > 1;
  const [draft, setDraft] = useState<string | null>(null);
  if (mine === undefined || !joinedOthers.current || askedForName.value || displayName.value !== "") return null;
  return (
    <form
      class="name-prompt"
      onSubmit={(event) => {
        event.preventDefault();
        askedForName.value = true;
        setDisplayName((draft ?? mine.name).trim());
      }}
    >
      <label>
        {labels.askName}
        <input
          type="text"
          class="field"
          autocomplete="name"
          maxLength={MAX_NAME}
          value={draft ?? mine.name}
          onFocus={(event) => event.currentTarget.select()}
          onInput={(event) => setDraft(event.currentTarget.value)}
        />
      </label>
      <button type="submit" class="small-button is-strong">
        {labels.saveName}
      </button>
      <button type="button" class="small-button" onClick={() => (askedForName.value = true)}>
        {labels.skipName}
      </button>
    </form>
  );
}
