/** The room this page is in, of which there is at most one, and how requests reach it. */

import { roomAddress } from "./address.ts";
import type { RoomKey } from "./address.ts";
import type { FrameDecoder } from "./frame-decoder.ts";
import { makeId } from "./make-id.ts";
import type { Operation, Request } from "./protocol.ts";
import { withRequest } from "./room.ts";
import type { RoomSocket } from "./socket.ts";
import { addRecentRoom } from "./recent-rooms.ts";
import * as store from "./store.ts";
import { storeUnsent } from "./unsent-edits.ts";

export interface Session {
  key: RoomKey;
  socket: RoomSocket;
  frames: FrameDecoder;
  /** For the next connection; "" if it was used. */
  ticket: string;
  /** Whether this connection has had its snapshot. Until then, new requests would overtake those to be re-sent. */
  synced: boolean;
  /** Digests of the pictures that are shown. */
  picture: string | null;
  result: string | null;
  /** Thumbnails of the timeline, by moment and time. */
  readonly thumbnails: Map<string, Promise<ImageBitmap>>;
}

let current: Session | null = null;

export function currentSession(): Session | null {
  return current;
}

/** From now on the page enters its room by another link, which is also the one in the address bar. */
export function replaceLink(secret: string): void {
  if (current === null) return;
  current.key = { ...current.key, secret };
  history.replaceState(null, "", roomAddress(current.key));
  addRecentRoom(current.key, {});
}

export function setCurrentSession(session: Session | null): void {
  current = session;
}

/** Records a request as pending and sends it, now or once the connection is back. */
export function sendRequest(request: Request): void {
  store.room.value = withRequest(store.room.value, request);
  if (current !== null && request.type === "edit") {
    storeUnsent(current.key.room, store.room.value.instance, request);
  }
  if (current?.synced) current.socket.send(request);
}

export function sendEdit(op: Operation): void {
  const edit = { type: "edit", op_id: makeId(), base: store.room.value.seq, op } as const;
  sendRequest(store.connected.value ? edit : { ...edit, offline: true });
}
