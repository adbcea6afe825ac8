/** The rooms this browser was in last, kept in its own storage: the links are the keys, so losing them loses the rooms. */

import { signal } from "@preact/signals";
import type { Key } from "./api.ts";

export interface Recent extends Key {
  /** Milliseconds, `Date.now()`. */
  readonly seen: number;
  /** A small picture as a data address, or "". */
  readonly thumbnail: string;
}

const NAME = "livedrag.recent";
const MOST = 8;

export const recent = signal<readonly Recent[]>(read());

export function remember(key: Key, thumbnail?: string): void {
  const before = recent.value.find((other) => other.room === key.room);
  const entry: Recent = {
    room: key.room,
    secret: key.secret,
    seen: Date.now(),
    thumbnail: thumbnail ?? before?.thumbnail ?? "",
  };
  write([entry, ...recent.value.filter((other) => other.room !== key.room)].slice(0, MOST));
}

export function forget(room: string): void {
  write(recent.value.filter((other) => other.room !== room));
}

function read(): readonly Recent[] {
  try {
    const value: unknown = JSON.parse(globalThis.localStorage?.getItem(NAME) ?? "[]");
    return Array.isArray(value) ? value.filter(isRecent).slice(0, MOST) : [];
  } catch {
    return [];
  }
}

function write(next: readonly Recent[]): void {
  recent.value = next;
  try {
    localStorage.setItem(NAME, JSON.stringify(next));
  } catch {
    // Storage is full or forbidden: the list then lasts as long as the page.
  }
}

function isRecent(value: unknown): value is Recent {
  const entry = value as Partial<Recent> | null;
  return typeof entry?.room === "string" && typeof entry.secret === "string" && typeof entry.thumbnail === "string";
}
