import { removePerson, setRole } from "../api.ts";
import type { Role } from "../protocol.ts";
import { name } from "../name.ts";
import { messageOf, rename } from "../session.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { Typed } from "./Typed.tsx";
import { CloseIcon } from "./icons.tsx";

const words = texts.people;
const ROLES: readonly Role[] = ["owner", "editor", "viewer"];
/** As many faces as the bar has room for. */
const FACES = 4;

/** Who is here and who is at something, as a row of small discs; only where there is company. */
export function Faces() {
  const here = Object.entries(store.room.value.people).filter(([, person]) => person.here);
  if (here.length < 2) return null;
  const others = here.filter(([id]) => id !== store.room.value.person);
  const labels = new Map(store.others.value.map(({ id, label }) => [id, label]));
  const called = here
    .map(([id, person]) =>
      id === store.room.value.person ? words.you : (labels.get(id) ?? (person.name || words.somebody)),
    )
    .join(", ");
  const busy = new Set(store.others.value.filter((one) => one.busy).map(({ id }) => id));
  return (
    <span class="faces" role="img" aria-label={words.here(called)} title={words.here(called)} data-testid="faces">
      {others.slice(0, FACES).map(([id, person]) => (
        <i key={id} class={busy.has(id) ? "is-busy" : ""} style={{ background: person.colour }}>
          {initial(person.name)}
        </i>
      ))}
      {others.length > FACES && <i class="faces-more">+{others.length - FACES}</i>}
    </span>
  );
}

function initial(called: string): string {
  return [...(called || words.somebody)][0]?.toUpperCase() ?? "";
}

/** Everybody, with what they may do; the owner changes it. */
export function PeopleList() {
  const { people, person: me } = store.room.value;
  const key = store.key.value;
  const owner = store.room.value.role === "owner";
  const act = (doing: Promise<void>) =>
    void doing.catch((error: unknown) => store.toast("error", texts.share.failed(messageOf(error))));
  return (
    <section aria-labelledby="people-title">
      <h3 id="people-title">{words.title}</h3>
      <ul class="people" data-testid="people">
        {Object.entries(people).map(([id, person]) => {
          const called = person.name || words.somebody;
          return (
            <li key={id} class={person.here ? "" : "is-away"}>
              <i class="face" style={{ background: person.colour }} aria-hidden="true">
                {initial(person.name)}
              </i>
              <span class="people-name">
                {called} {id === me && <em>({words.you})</em>} {!person.here && <em>{words.away}</em>}
              </span>
              {owner && id !== me && key !== null ? (
                <>
                  <select
                    class="field"
                    aria-label={words.roleOf(called)}
                    value={person.role}
                    onChange={(event) => act(setRole(key, id, event.currentTarget.value as Role))}
                  >
                    {ROLES.map((role) => (
                      <option key={role} value={role}>
                        {words.roles[role]}
                      </option>
                    ))}
                  </select>
                  <button
                    type="button"
                    class="icon-button"
                    aria-label={words.remove(called)}
                    title={words.remove(called)}
                    onClick={() => act(removePerson(key, id))}
                  >
                    <CloseIcon />
                  </button>
                </>
              ) : (
                <span class="people-role">{words.roles[person.role]}</span>
              )}
            </li>
          );
        })}
      </ul>
      <label class="name-field">
        <span>{words.name}</span>
        <Typed
          class="field"
          type="text"
          autocomplete="nickname"
          maxLength={60}
          value={name.value || (people[me]?.name ?? "")}
          aria-describedby="name-help"
          send={(field) => rename(field.value.trim())}
        />
        <small id="name-help">{words.nameHelp}</small>
      </label>
    </section>
  );
}
