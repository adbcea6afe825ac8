/** The rooms this browser opened last. The list holds their links, without which the rooms can't be opened again. */

import { signal } from "@preact/signals";
import type { RoomKey } from "./address.ts";
import { removeStoredRoom } from "./stored-rooms.ts";

export interface RecentRoom extends RoomKey {
  /** Milliseconds, `Date.now()`. */
  readonly seen: number;
  /** A small picture as a data URL, or "". */
  readonly thumbnail: string;
}

const STORAGE_KEY = "livedrag.recent";
const MAX_ROOMS = 8;

export const recentRooms = signal<readonly RecentRoom[]>(read());

export function addRecentRoom({ room, secret }: RoomKey, thumbnail: string): void {
  const others = recentRooms.value.filter((other) => other.room !== room);
  write([{ room, secret, seen: Date.now(), thumbnail }, ...others].slice(0, MAX_ROOMS));
}

export function removeRecentRoom(room: string): void {
  write(recentRooms.value.filter((other) => other.room !== room));
  void removeStoredRoom(room);
}

function read(): readonly RecentRoom[] {
  try {
    const value: unknown = JSON.parse(globalThis.localStorage?.getItem(STORAGE_KEY) ?? "[]");
    return Array.isArray(value) ? value.filter(isRecentRoom).slice(0, MAX_ROOMS) : [];
  } catch {
    return [];
  }
}

function write(next: readonly RecentRoom[]): void {
  recentRooms.value = next;
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(next));
  } catch {
    // Storage is full or forbidden: the list lasts until the page is closed.
  }
}

function isRecentRoom(value: unknown): value is RecentRoom {
  const entry = value as Partial<RecentRoom> | null;
  return typeof entry?.room === "string" && typeof entry.secret === "string" && typeof entry.thumbnail === "string";
}
