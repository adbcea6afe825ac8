import { removePerson, setRole } from "../room/api.ts";
import type { RoomKey } from "../room/address.ts";
import { displayName } from "../room/display-name.ts";
import { follow } from "../room/follow-view.ts";
import { messageOf } from "../room/http.ts";
import { setDisplayName } from "../room/presence.ts";
import { MAX_NAME } from "../room/protocol.ts";
import type { Person, Role } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { texts as roomTexts } from "../room/texts.ts";
import { ConfirmButton } from "../ui/ConfirmButton.tsx";
import { DraftInput } from "../ui/DraftInput.tsx";
import { CloseIcon } from "../ui/icons.tsx";
import { initialsOf } from "./initials.ts";
import { texts } from "./texts.ts";

const labels = texts.people;
const ROLES: readonly Role[] = ["owner", "editor", "viewer"];
const MAX_AVATARS = 4;

/** Who else is here, as a row of discs; those who are doing something are marked. */
export function Avatars() {
  const me = store.room.value.person;
  const here = Object.entries(store.room.value.people).filter(([, person]) => person.here);
  if (here.length < 2) return null;
  const others = here.filter(([id]) => id !== me);
  const initials = initialsById(Object.entries(store.room.value.people));
  const shown = new Map(store.otherPeople.value.map((person) => [person.id, person]));
  const names = here.map(([id, person]) => (id === me ? labels.you : (shown.get(id)?.label ?? nameOf(person))));
  const label = labels.here(names.join(", "));
  return (
    <span class="avatars" role="group" aria-label={label} title={label} data-testid="avatars">
      {others.slice(0, MAX_AVATARS).map(([id, person]) => (
        <button
          key={id}
          type="button"
          class={shown.get(id)?.busy ? "is-busy" : ""}
          style={{ background: person.colour }}
          aria-label={labels.follow(nameOf(person))}
          aria-pressed={store.followed.value === id}
          title={labels.follow(shown.get(id)?.label ?? nameOf(person))}
          onClick={() => follow(id)}
        >
          {initials.get(id)}
        </button>
      ))}
      {others.length > MAX_AVATARS && <i class="avatars-more">+{others.length - MAX_AVATARS}</i>}
    </span>
  );
}

/** Everyone with their role, which owners can change. */
export function PeopleList() {
  const people = Object.entries(store.room.value.people);
  const initials = initialsById(people);
  return (
    <section aria-labelledby="people-title">
      <h3 id="people-title">{labels.title}</h3>
      <ul class="people" data-testid="people">
        {people.map(([id, person]) => (
          <PersonItem key={id} id={id} person={person} initials={initials.get(id) ?? ""} />
        ))}
      </ul>
      <NameField />
    </section>
  );
}

function PersonItem(props: { readonly id: string; readonly person: Person; readonly initials: string }) {
  const { id, person, initials } = props;
  const { person: me, role } = store.room.value;
  const key = store.roomKey.value;
  return (
    <li class={person.here ? "" : "is-away"}>
      <i class="avatar" style={{ background: person.colour }} aria-hidden="true">
        {initials}
      </i>
      <span class="people-name">
        {nameOf(person)} {id === me && <em>({labels.you})</em>} {!person.here && <em>{labels.away}</em>}
      </span>
      {role === "owner" && id !== me && key !== null ? (
        <PersonControls room={key} id={id} person={person} />
      ) : (
        <span class="people-role">{labels.roles[person.role]}</span>
      )}
    </li>
  );
}

function PersonControls(props: { readonly room: RoomKey; readonly id: string; readonly person: Person }) {
  const { room, id, person } = props;
  const name = nameOf(person);
  return (
    <>
      <select
        class="field"
        aria-label={labels.roleOf(name)}
        value={person.role}
        onChange={(event) => void setRole(room, id, event.currentTarget.value as Role).catch(toastFailure)}
      >
        {ROLES.map((role) => (
          <option key={role} value={role}>
            {labels.roles[role]}
          </option>
        ))}
      </select>
      <ConfirmButton
        class="icon-button"
        label={labels.remove(name)}
        question={labels.removeQuestion(name)}
        confirm={labels.removeConfirm}
        onConfirm={() => void removePerson(room, id).catch(toastFailure)}
      >
        <CloseIcon />
      </ConfirmButton>
    </>
  );
}

function NameField() {
  const { people, person: me } = store.room.value;
  return (
    <label class="name-field">
      <span>{labels.yourName}</span>
      <DraftInput
        class="field"
        type="text"
        autocomplete="nickname"
        maxLength={MAX_NAME}
        value={displayName.value || (people[me]?.name ?? "")}
        aria-describedby="name-help"
        onCommit={(input) => setDisplayName(input.value.trim())}
      />
      <small id="name-help">{labels.yourNameHelp}</small>
    </label>
  );
}

function nameOf(person: Person): string {
  return person.name || roomTexts.people.anonymous;
}

/** What stands for each person in a disc, by id. */
function initialsById(people: readonly (readonly [string, Person])[]): ReadonlyMap<string, string> {
  const initials = initialsOf(people.map(([, person]) => nameOf(person)));
  return new Map(people.map(([id], index) => [id, initials[index] ?? ""]));
}

/** Says that a change of people or links has failed. */
export function toastFailure(error: unknown): void {
  store.toast("error", labels.failed(messageOf(error)));
}
