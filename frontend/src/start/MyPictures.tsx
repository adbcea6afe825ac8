import { useSignal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import { roomAddress } from "../room/address.ts";
import type { RoomKey } from "../room/address.ts";
import { copyRoom, deleteRoom, renameRoom } from "../room/api.ts";
import { ApiError, messageOf } from "../room/http.ts";
import { MAX_TITLE } from "../room/protocol.ts";
import { addRecentRoom, recentRooms, removeRecentRoom, renameRecentRoom } from "../room/recent-rooms.ts";
import type { RecentRoom } from "../room/recent-rooms.ts";
import { toast } from "../room/store.ts";
import { ConfirmButton } from "../ui/ConfirmButton.tsx";
import { dateAndTime } from "../ui/dates.ts";
import { Dialog } from "../ui/Dialog.tsx";
import { DraftInput } from "../ui/DraftInput.tsx";
import { MoreIcon, PictureIcon } from "../ui/icons.tsx";
import { texts } from "./texts.ts";

const labels = texts.pictures;

/** Fewer rooms are seen at a glance. */
const MIN_SEARCHED = 6;

/** All rooms that this browser knows. `enter` goes to one. */
export function MyPictures({ enter }: { readonly enter: (key: RoomKey) => void }) {
  const search = useSignal("");
  const chosen = useSignal<string | null>(null);
  const rooms = recentRooms.value;
  if (rooms.length === 0) return null;
  const found = rooms.filter((room) => nameOf(room).toLowerCase().includes(search.value.trim().toLowerCase()));
  return (
    <section class="recent" aria-labelledby="recent">
      <div class="recent-head">
        <h2 id="recent">{labels.title}</h2>
        {rooms.length >= MIN_SEARCHED && (
          <input
            type="search"
            class="field"
            aria-label={labels.search}
            placeholder={labels.search}
            value={search.value}
            onInput={(event) => (search.value = event.currentTarget.value)}
          />
        )}
      </div>
      <ul data-testid="my-pictures">
        {found.map((room) => (
          <Item key={room.room} room={room} enter={enter} manage={() => (chosen.value = room.room)} />
        ))}
      </ul>
      <p role="status" class={found.length > 0 ? "visually-hidden" : ""}>
        {search.value.trim() !== "" && labels.found(found.length)}
      </p>
      <RoomDialog chosen={chosen} />
    </section>
  );
}

function Item(props: {
  readonly room: RecentRoom;
  readonly enter: (key: RoomKey) => void;
  readonly manage: () => void;
}) {
  const { room, secret, thumbnail } = props.room;
  const name = nameOf(props.room);
  return (
    <li>
      <a
        href={roomAddress({ room, secret })}
        title={opened(props.room)}
        onClick={(event) => {
          // A new tab or window is the browser's business.
          if (event.metaKey || event.ctrlKey || event.shiftKey) return;
          event.preventDefault();
          props.enter({ room, secret });
        }}
      >
        <span class="recent-picture">{thumbnail ? <img src={thumbnail} alt="" /> : <PictureIcon />}</span>
        <span class="recent-name">{name}</span>
      </a>
      <button type="button" class="icon-button" aria-label={labels.manage(name)} onClick={props.manage}>
        <MoreIcon />
      </button>
    </li>
  );
}

/** Renames, duplicates, forgets or deletes the chosen room. */
function RoomDialog({ chosen }: { readonly chosen: Signal<string | null> }) {
  const busy = useSignal(false);
  const room = recentRooms.value.find((one) => one.room === chosen.value);
  if (room === undefined) return null;
  const close = () => (chosen.value = null);
  const run = async (action: () => Promise<void>) => {
    busy.value = true;
    try {
      await action();
    } catch (error) {
      toast("error", labels.failed(messageOf(error)));
    }
    busy.value = false;
  };
  return (
    <Dialog title={nameOf(room)} onClose={close}>
      <p>{opened(room)}</p>
      <label class="recent-rename">
        {labels.name}
        <DraftInput
          type="text"
          class="field"
          maxLength={MAX_TITLE}
          value={room.title}
          disabled={busy.value}
          onCommit={({ value }) => void run(() => rename(room, value.trim()))}
        />
      </label>
      <div class="recent-actions">
        <button
          type="button"
          class="small-button"
          disabled={busy.value}
          title={labels.duplicateHelp}
          onClick={() => void run(() => duplicate(room))}
        >
          {labels.duplicate}
        </button>
        <ConfirmButton
          class="small-button"
          question={labels.forgetQuestion}
          confirm={labels.forgetConfirm}
          onConfirm={() => removeRecentRoom(room.room)}
        >
          {labels.forget}
        </ConfirmButton>
        <ConfirmButton
          class="small-button is-bad"
          question={labels.deleteQuestion}
          confirm={labels.deleteConfirm}
          onConfirm={() => void run(() => remove(room))}
        >
          {labels.delete}
        </ConfirmButton>
      </div>
    </Dialog>
  );
}

async function rename(room: RecentRoom, title: string): Promise<void> {
  await renameRoom(room, title);
  renameRecentRoom(room.room, title);
}

async function duplicate(room: RecentRoom): Promise<void> {
  const title = labels.copyOf(nameOf(room));
  addRecentRoom(await copyRoom(room, title), { thumbnail: room.thumbnail, title });
  toast("info", labels.duplicated(title));
}

async function remove(room: RecentRoom): Promise<void> {
  try {
    await deleteRoom(room);
  } catch (error) {
    // Another owner has deleted it already.
    if (!(error instanceof ApiError && error.status === 404)) throw error;
  }
  removeRecentRoom(room.room);
}

function nameOf({ title, seen }: RecentRoom): string {
  return title || labels.unnamed(new Date(seen).toLocaleDateString());
}

function opened({ seen }: RecentRoom): string {
  return labels.opened(dateAndTime(seen));
}
