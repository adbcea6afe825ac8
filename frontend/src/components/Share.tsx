import type { Signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { deleteRoom, fetchLinks, makeLink, revokeLink } from "../api.ts";
import type { Key, Link } from "../api.ts";
import type { Role } from "../protocol.ts";
import { qrCode } from "../qr.ts";
import { address } from "../routes.ts";
import { messageOf } from "../session.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { PeopleList } from "./People.tsx";
import { Sheet } from "./Sheet.tsx";
import { CloseIcon } from "./icons.tsx";

const words = texts.share;
const ROLES: readonly Role[] = ["editor", "viewer"];

export function Share({ open }: { readonly open: Signal<boolean> }) {
  const key = store.key.value;
  return (
    <Sheet open={open} title={words.title}>
      {open.value && key !== null && (
        <div class="share">
          {store.room.value.role === "owner" ? <Links room={key} /> : <p class="empty">{words.onlyOwner}</p>}
          <PeopleList />
          {store.room.value.role === "owner" && <DeleteRoom room={key} />}
        </div>
      )}
    </Sheet>
  );
}

function Links({ room }: { readonly room: Key }) {
  const [links, setLinks] = useState<readonly Link[]>([]);
  const [made, setMade] = useState<{ readonly role: Role; readonly url: string } | null>(null);
  const failed = (error: unknown) => store.toast("error", words.failed(messageOf(error)));
  const list = () => fetchLinks(room).then(setLinks, failed);
  useEffect(() => void list(), []);
  const make = async (role: Role) => {
    try {
      const { secret } = await makeLink(room, role);
      setMade({ role, url: window.location.origin + address({ room: room.room, secret }) });
      await list();
    } catch (error) {
      failed(error);
    }
  };
  const revoke = async (id: string) => {
    try {
      await revokeLink(room, id);
      setMade(null);
      store.toast("info", words.revoked);
      await list();
    } catch (error) {
      failed(error);
    }
  };
  return (
    <section aria-labelledby="links-title">
      <h3 id="links-title">{words.links}</h3>
      <div class="row">
        {ROLES.map((role) => (
          <button key={role} type="button" class="small-button" onClick={() => void make(role)}>
            {words.make[role]}
          </button>
        ))}
      </div>
      {made !== null && <Made role={made.role} url={made.url} />}
      <ul class="links" data-testid="links">
        {links.map((link) => (
          <li key={link.id}>
            <span>{texts.people.roles[link.role]}</span>
            <small>{link.used === null ? words.unused : words.used(new Date(link.used * 1000).toLocaleString())}</small>
            <button
              type="button"
              class="icon-button"
              aria-label={words.revoke(texts.people.roles[link.role])}
              title={words.revoke(texts.people.roles[link.role])}
              onClick={() => void revoke(link.id)}
            >
              <CloseIcon />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** A link that was just made, to copy or to hold a phone before. */
function Made({ role, url }: { readonly role: Role; readonly url: string }) {
  const field = useRef<HTMLInputElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(url);
      store.toast("info", words.copied);
    } catch {
      field.current?.select();
      store.toast("error", words.notCopied);
    }
  };
  return (
    <div class="made">
      <div class="made-link">
        <label>
          <span>{texts.people.roles[role]}</span>
          <input
            ref={field}
            class="field"
            type="text"
            readOnly
            value={url}
            aria-label={words.link}
            data-testid="made-link"
            onFocus={(event) => event.currentTarget.select()}
          />
        </label>
        <button type="button" class="small-button is-strong" onClick={() => void copy()}>
          {words.copy}
        </button>
      </div>
      <Qr text={url} />
      <small>{words.once}</small>
    </div>
  );
}

/** Dark on white in both themes: cameras want it so. */
function Qr({ text }: { readonly text: string }) {
  const code = qrCode(text);
  const path = code
    .flatMap((row, y) => row.flatMap((dark, x) => (dark ? [`M${x + 4} ${y + 4}h1v1h-1z`] : [])))
    .join("");
  const side = code.length + 8;
  return (
    <svg
      class="qr"
      viewBox={`0 0 ${side} ${side}`}
      role="img"
      aria-label={words.qr}
      shape-rendering="crispEdges"
      data-testid="qr"
    >
      <rect width={side} height={side} fill="#fff" />
      <path d={path} fill="#000" />
    </svg>
  );
}

function DeleteRoom({ room }: { readonly room: Key }) {
  const [asking, setAsking] = useState(false);
  if (!asking) {
    return (
      <button type="button" class="small-button is-bad" onClick={() => setAsking(true)}>
        {words.delete}
      </button>
    );
  }
  return (
    <div class="sure" role="alertdialog" aria-label={words.deleteSure}>
      <p>{words.deleteSure}</p>
      <div class="row">
        <button
          type="button"
          class="small-button is-bad"
          onClick={() =>
            void deleteRoom(room).catch((error: unknown) => store.toast("error", words.failed(messageOf(error))))
          }
        >
          {words.deleteYes}
        </button>
        <button type="button" class="small-button" onClick={() => setAsking(false)}>
          {words.deleteNo}
        </button>
      </div>
    </div>
  );
}
