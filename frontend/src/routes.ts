/** Addresses of the page: `/` is the landing, `/r/{room}#{secret}` a room. */

import { signal } from "@preact/signals";
import type { Key } from "./api.ts";

export type Route = { readonly page: "landing" } | { readonly page: "room"; readonly key: Key };

/** What the server's addresses begin with where it is served below a path: "" or such as "/drag". */
export const base = globalThis.document?.querySelector<HTMLMetaElement>("meta[name=livedrag-base]")?.content ?? "";

export function parse(path: string, fragment: string, below = base): Route {
  const inside = path.startsWith(below) ? path.slice(below.length) : path;
  const room = /^\/r\/([A-Za-z0-9_-]+)\/?$/.exec(inside)?.[1];
  return room === undefined ? { page: "landing" } : { page: "room", key: { room, secret: fragment.replace(/^#/, "") } };
}

export function address(key: Key): string {
  return `${base}/r/${key.room}#${key.secret}`;
}

export const route = signal<Route>(parse(globalThis.location?.pathname ?? "/", globalThis.location?.hash ?? ""));

export function goTo(next: Route): void {
  history.pushState(null, "", next.page === "room" ? address(next.key) : `${base}/`);
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
