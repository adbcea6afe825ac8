/**
 * Edits that the server has not answered yet, kept in the browser by room: a reload, or a browser that is closed while
 * the connection is lost, loses none of them. Tabs of one room share what is kept; sending an edit twice is harmless.
 */

import type { Edit } from "./protocol.ts";

interface Kept {
  readonly edit: Edit;
  /** The life of the room that the edit's `base` counts in. */
  readonly instance: string;
  /** Milliseconds, `Date.now()`. */
  readonly made: number;
}

const NAME = "livedrag.unsent.";
/** Nobody remembers what they changed earlier than that. */
const LONGEST = 30 * 24 * 3600 * 1000;

export function keep(room: string, instance: string, edit: Edit): void {
  write(room, [...read(room), { edit, instance, made: Date.now() }]);
}

/** The server has answered: there is nothing to send again. */
export function settle(room: string, op_id: string): void {
  const before = read(room);
  const after = before.filter(({ edit }) => edit.op_id !== op_id);
  if (after.length < before.length) write(room, after);
}

/** What is still to be sent, in the order made, and how many of another life of the room can't be; those are dropped. */
export function unsent(room: string, instance: string): { readonly edits: readonly Edit[]; readonly dropped: number } {
  const all = read(room);
  const ours = all.filter((kept) => kept.instance === instance && Date.now() - kept.made < LONGEST);
  if (ours.length < all.length) write(room, ours);
  return { edits: ours.map(({ edit }) => ({ ...edit, offline: true })), dropped: all.length - ours.length };
}

export function dropAll(room: string): void {
  write(room, []);
}

function read(room: string): readonly Kept[] {
  try {
    const value: unknown = JSON.parse(globalThis.localStorage?.getItem(NAME + room) ?? "[]");
    return Array.isArray(value) ? value.filter(isKept) : [];
  } catch {
    return [];
  }
}

function write(room: string, kept: readonly Kept[]): void {
  try {
    if (kept.length === 0) globalThis.localStorage?.removeItem(NAME + room);
    else globalThis.localStorage?.setItem(NAME + room, JSON.stringify(kept));
  } catch {
    // Storage is full or forbidden: edits then wait as long as the page is open.
  }
}

function isKept(value: unknown): value is Kept {
  const kept = value as Partial<Kept> | null;
  return (
    typeof kept?.instance === "string" &&
    typeof kept.made === "number" &&
    kept.edit?.type === "edit" &&
    typeof kept.edit.op_id === "string"
  );
}
