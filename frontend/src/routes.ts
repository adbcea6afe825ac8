/** Addresses of the page: `/` is the landing, `/r/{room}#{secret}` a room. */

import { signal } from "@preact/signals";
import type { Key } from "./api.ts";

export type Route = { readonly page: "landing" } | { readonly page: "room"; readonly key: Key };

export function parse(path: string, fragment: string): Route {
  const room = /^\/r\/([A-Za-z0-9_-]+)\/?$/.exec(path)?.[1];
  return room === undefined ? { page: "landing" } : { page: "room", key: { room, secret: fragment.replace(/^#/, "") } };
}

export function address(key: Key): string {
  return `/r/${key.room}#${key.secret}`;
}

export const route = signal<Route>(parse(globalThis.location?.pathname ?? "/", globalThis.location?.hash ?? ""));

export function goTo(next: Route): void {
  history.pushState(null, "", next.page === "room" ? address(next.key) : "/");
  route.value = next;
}

/** Follows the browser's back and forward. Returns how to stop. */
export function followHistory(): () => void {
  const follow = () => {
    const next = parse(location.pathname, location.hash);
    const now = route.value;
    if (next.page === "room" && now.page === "room" && address(next.key) === address(now.key)) return;
    route.value = next;
  };
  window.addEventListener("popstate", follow);
  return () => window.removeEventListener("popstate", follow);
}
