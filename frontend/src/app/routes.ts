/** Addresses of the page: `/` is the start page, `/r/{room}#{secret}` a room. */

import { signal } from "@preact/signals";
import { base, roomAddress } from "../room/address.ts";
import type { RoomKey } from "../room/address.ts";

export type Route = { readonly page: "landing" } | { readonly page: "room"; readonly key: RoomKey };

export function parseRoute(path: string, fragment: string, basePath = base): Route {
  const inside = path.startsWith(basePath) ? path.slice(basePath.length) : path;
  const room = /^\/r\/([A-Za-z0-9_-]+)\/?$/.exec(inside)?.[1];
  if (room === undefined) return { page: "landing" };
  return { page: "room", key: { room, secret: fragment.replace(/^#/, "") } };
}

export const route = signal<Route>(parseRoute(globalThis.location?.pathname ?? "/", globalThis.location?.hash ?? ""));

export function goToRoom(key: RoomKey): void {
  history.pushState(null, "", roomAddress(key));
  route.value = { page: "room", key };
}

export function goToLanding(): void {
  history.pushState(null, "", `${base}/`);
  route.value = { page: "landing" };
}

/** Follows the browser's back and forward buttons. Returns a function that stops. */
export function followHistory(): () => void {
  const follow = () => {
    const next = parseRoute(location.pathname, location.hash);
    const now = route.value;
    const same = next.page === "room" && now.page === "room" && roomAddress(next.key) === roomAddress(now.key);
    if (!same) route.value = next;
  };
  window.addEventListener("popstate", follow);
  return () => window.removeEventListener("popstate", follow);
}
