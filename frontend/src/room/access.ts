/**
 * Access to a room by HTTP. Entering sets a cookie. Where that is lost, as when another server on the same host has
 * replaced it, the page enters again; where the browser blocks cookies, requests carry the link's secret instead.
 */

import type { RoomKey } from "./address.ts";
import { displayName } from "./display-name.ts";
import { ApiError, json, request, requestJson } from "./http.ts";
import { texts } from "./texts.ts";

/** Rooms whose cookie the browser does not send. */
const withoutCookie = new Set<string>();
/** Entries under way, by room. */
const entries = new Map<string, Promise<string>>();

/** Gives this browser a cookie for the room. Resolves to a ticket, which opens one connection without the cookie. */
export function enterRoom({ room, secret }: RoomKey): Promise<string> {
  const entry =
    entries.get(room) ??
    requestJson<{ readonly ticket: string }>(`/api/rooms/${room}/enter`, json("POST", { secret }))
      .then(({ ticket }) => ticket)
      .finally(() => entries.delete(room));
  entries.set(room, entry);
  return entry;
}

/** A request about a room; `path` begins behind the room's id. Throws `ApiError` unless the answer is a success. */
export async function roomRequest(key: RoomKey, path: string, init: RequestInit = {}): Promise<Response> {
  const send = () =>
    request(`/api/rooms/${key.room}${path}`, withoutCookie.has(key.room) ? withSecret(init, key.secret) : init);
  const first = await sentOrDenied(send);
  if (first instanceof Response) return first;
  if (key.secret === "" || withoutCookie.has(key.room)) throw first;
  await enterRoom(key);
  const second = await sentOrDenied(send);
  if (second instanceof Response) return second;
  withoutCookie.add(key.room);
  return send();
}

/** The answer, or the error if the server doesn't know this browser. */
async function sentOrDenied(send: () => Promise<Response>): Promise<Response | ApiError> {
  try {
    return await send();
  } catch (error) {
    if (error instanceof ApiError && error.status === 403 && error.reason === "wrong_secret") return error;
    throw error;
  }
}

function withSecret(init: RequestInit, secret: string): RequestInit {
  const headers = new Headers(init.headers);
  headers.set("Authorization", `Bearer ${secret}`);
  headers.set("Livedrag-Name", encodeURIComponent(displayName.value || texts.people.anonymous));
  return { ...init, headers };
}
