import type { Signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { roomAddress } from "../room/address.ts";
import type { RoomKey } from "../room/address.ts";
import { createLink, deleteRoom, fetchLinks, revokeLink } from "../room/api.ts";
import type { Link } from "../room/api.ts";
import { replaceLink } from "../room/current-session.ts";
import type { Role } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { ConfirmButton } from "../ui/ConfirmButton.tsx";
import { dateAndTime } from "../ui/dates.ts";
import { Dialog } from "../ui/Dialog.tsx";
import { CloseIcon } from "../ui/icons.tsx";
import { QrCode } from "../ui/QrCode.tsx";
import { PeopleList, toastFailure } from "./People.tsx";
import { texts as laterTexts } from "./later-texts.ts";
import { texts } from "./texts.ts";

const labels = laterTexts.share;
const ROLES: readonly Role[] = ["editor", "viewer"];

interface NewLink {
  readonly role: Role;
  readonly url: string;
}

export function Share({ open }: { readonly open: Signal<boolean> }) {
  const key = store.roomKey.value;
  const owner = store.room.value.role === "owner";
  return (
    <Dialog open={open} title={labels.title}>
      {open.value && key !== null && (
        <>
          {owner ? <Links room={key} /> : <p class="empty">{labels.ownersOnly}</p>}
          <PeopleList />
          {owner && <DeleteRoom room={key} />}
        </>
      )}
    </Dialog>
  );
}

function Links({ room }: { readonly room: RoomKey }) {
  const [links, setLinks] = useState<readonly Link[]>([]);
  const [created, setCreated] = useState<NewLink | null>(null);
  const [ownerRevoked, setOwnerRevoked] = useState(false);
  const refresh = async () => setLinks(await fetchLinks(room));
  useEffect(() => void refresh().catch(toastFailure), []);
  const create = async (role: Role) => {
    const { secret } = await createLink(room, role);
    setCreated({ role, url: window.location.origin + roomAddress({ room: room.room, secret }) });
    await refresh();
    return secret;
  };
  const revoke = async ({ id, role }: Link) => {
    // Without an owner link no one could become an owner again: the new one comes first.
    const isLast = role === "owner" && links.every((link) => link.id === id || link.role !== "owner");
    if (isLast) await createOwnerLink();
    else setCreated(null);
    await revokeLink(room, id);
    setOwnerRevoked(role === "owner" && !isLast);
    store.toast("info", labels.revoked);
    await refresh();
  };
  const createOwnerLink = async () => {
    replaceLink(await create("owner"));
    setOwnerRevoked(false);
  };
  return (
    <section aria-labelledby="links-title">
      <h3 id="links-title">{labels.links}</h3>
      <div class="row">
        {ROLES.map((role) => (
          <button key={role} type="button" class="small-button" onClick={() => void create(role).catch(toastFailure)}>
            {labels.create[role]}
          </button>
        ))}
      </div>
      {ownerRevoked && (
        <div class="confirm" role="group" aria-label={labels.ownerRevoked}>
          <p>{labels.ownerRevoked}</p>
          <button type="button" class="small-button" onClick={() => void createOwnerLink().catch(toastFailure)}>
            {labels.create.owner}
          </button>
        </div>
      )}
      {created !== null && <CreatedLink {...created} />}
      <ul class="links" data-testid="links">
        {links.map((link) => (
          <LinkItem key={link.id} link={link} revoke={() => void revoke(link).catch(toastFailure)} />
        ))}
      </ul>
    </section>
  );
}

function LinkItem({ link, revoke }: { readonly link: Link; readonly revoke: () => void }) {
  const role = texts.people.roles[link.role];
  return (
    <li>
      <span>{role}</span>
      <small>{link.used === null ? labels.unused : labels.used(dateAndTime(link.used * 1000))}</small>
      <ConfirmButton
        class="icon-button"
        label={labels.revoke(role)}
        question={link.role === "owner" ? labels.revokeOwnerQuestion : labels.revokeQuestion}
        confirm={labels.revokeConfirm}
        onConfirm={revoke}
      >
        <CloseIcon />
      </ConfirmButton>
    </li>
  );
}

/** A link just created, to copy or to scan. */
function CreatedLink({ role, url }: NewLink) {
  const input = useRef<HTMLInputElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(url);
      store.toast("info", labels.copied);
    } catch {
      input.current?.select();
      store.toast("error", labels.copyFailed);
    }
  };
  return (
    <div class="new-link">
      <div class="new-link-row">
        <label>
          <span>{texts.people.roles[role]}</span>
          <input
            ref={input}
            class="field"
            type="text"
            readOnly
            value={url}
            aria-label={labels.link}
            data-testid="new-link"
            onFocus={(event) => event.currentTarget.select()}
          />
        </label>
        <button type="button" class="small-button is-strong" onClick={() => void copy()}>
          {labels.copy}
        </button>
      </div>
      <QrCode text={url} />
      <small>{labels.shownOnce}</small>
    </div>
  );
}

function DeleteRoom({ room }: { readonly room: RoomKey }) {
  return (
    <div>
      <ConfirmButton
        class="small-button is-bad"
        question={labels.deleteQuestion}
        confirm={labels.deleteConfirm}
        onConfirm={() => void deleteRoom(room).catch(toastFailure)}
      >
        {labels.delete}
      </ConfirmButton>
    </div>
  );
}
