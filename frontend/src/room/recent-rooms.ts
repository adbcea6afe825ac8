/** The rooms that this browser knows. The list holds their links, without which they can't be opened again. */

import { signal } from "@preact/signals";
import type { RoomKey } from "./address.ts";
import { removeStoredRoom } from "./stored-rooms.ts";

export interface RecentRoom extends RoomKey {
  /** Milliseconds, `Date.now()`. */
  readonly seen: number;
  /** A small picture as a data URL, or "". */
  readonly thumbnail: string;
  /** The room's name when it was last seen; "" if it had none. */
  readonly title: string;
}

const STORAGE_KEY = "livedrag.recent";

/** The one seen last comes first. */
export const recentRooms = signal<readonly RecentRoom[]>(read());

// Other tabs of this browser write the list too.
globalThis.addEventListener?.("storage", ({ key }) => {
  if (key === STORAGE_KEY || key === null) recentRooms.value = read();
});

export function addRecentRoom(
  { room, secret }: RoomKey,
  changes: { readonly thumbnail?: string; readonly title?: string },
): void {
  const known = read();
  const before = known.find((one) => one.room === room);
  const { thumbnail = before?.thumbnail ?? "", title = before?.title ?? "" } = changes;
  const others = known.filter((other) => other.room !== room);
  write([{ room, secret, seen: Date.now(), thumbnail, title }, ...others]);
}

/** Changes the name of a room where it is in the list. */
export function renameRecentRoom(room: string, title: string): void {
  const known = read();
  if (!known.some((one) => one.room === room && one.title !== title)) return;
  write(known.map((one) => (one.room === room ? { ...one, title } : one)));
}

export function removeRecentRoom(room: string): void {
  write(read().filter((other) => other.room !== room));
  void removeStoredRoom(room);
}

function read(): readonly RecentRoom[] {
  try {
    const value: unknown = JSON.parse(globalThis.localStorage?.getItem(STORAGE_KEY) ?? "[]");
    return Array.isArray(value) ? value.filter(isRecentRoom).map((room) => ({ ...room, title: room.title ?? "" })) : [];
  } catch {
    return [];
  }
}

/** If the storage is full, the oldest rooms lose their thumbnails; no room loses its link. */
function write(next: readonly RecentRoom[]): void {
  recentRooms.value = next;
  for (let shown = next.length; ; shown = Math.floor(shown / 2)) {
    try {
      const stored = next.map((room, index) => (index < shown ? room : { ...room, thumbnail: "" }));
      localStorage.setItem(STORAGE_KEY, JSON.stringify(stored));
      return;
    } catch {
      // Full of something else, or forbidden: the list lasts until the page is closed.
      if (shown === 0) return;
    }
  }
}

function isRecentRoom(value: unknown): value is RecentRoom {
  const entry = value as Partial<RecentRoom> | null;
  return typeof entry?.room === "string" && typeof entry.secret === "string" && typeof entry.thumbnail === "string";
}
