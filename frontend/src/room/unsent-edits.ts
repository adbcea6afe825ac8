/**
 * Edits that the server has not answered, stored in the browser by room, so that reloading or closing the page offline
 * loses none. Tabs of one room share the list; sending an edit twice is harmless.
 */

import type { Edit } from "./protocol.ts";

interface StoredEdit {
  readonly edit: Edit;
  /** The room's instance, in which the edit's `base` counts. */
  readonly instance: string;
  /** Milliseconds, `Date.now()`. */
  readonly made: number;
}

const STORAGE_PREFIX = "livedrag.unsent.";
/** Milliseconds. */
const MAX_AGE = 30 * 24 * 3600 * 1000;

export function storeUnsent(room: string, instance: string, edit: Edit): void {
  write(room, [...read(room), { edit, instance, made: Date.now() }]);
}

/** The server has answered an edit. */
export function removeUnsent(room: string, op_id: string): void {
  const before = read(room);
  const after = before.filter(({ edit }) => edit.op_id !== op_id);
  if (after.length < before.length) write(room, after);
}

/** The edits still to be sent, in order. Those of another instance, or too old, are discarded and counted. */
export function loadUnsent(
  room: string,
  instance: string,
): { readonly edits: readonly Edit[]; readonly discarded: number } {
  const stored = read(room);
  const usable = stored.filter((one) => one.instance === instance && Date.now() - one.made < MAX_AGE);
  if (usable.length < stored.length) write(room, usable);
  return {
    edits: usable.map(({ edit }) => ({ ...edit, offline: true })),
    discarded: stored.length - usable.length,
  };
}

export function clearUnsent(room: string): void {
  write(room, []);
}

function read(room: string): readonly StoredEdit[] {
  try {
    const value: unknown = JSON.parse(globalThis.localStorage?.getItem(STORAGE_PREFIX + room) ?? "[]");
    return Array.isArray(value) ? value.filter(isStoredEdit) : [];
  } catch {
    return [];
  }
}

function write(room: string, stored: readonly StoredEdit[]): void {
  try {
    if (stored.length === 0) globalThis.localStorage?.removeItem(STORAGE_PREFIX + room);
    else globalThis.localStorage?.setItem(STORAGE_PREFIX + room, JSON.stringify(stored));
  } catch {
    // Storage is full or forbidden: edits wait until the page is closed.
  }
}

function isStoredEdit(value: unknown): value is StoredEdit {
  const stored = value as Partial<StoredEdit> | null;
  return (
    typeof stored?.instance === "string" &&
    typeof stored.made === "number" &&
    stored.edit?.type === "edit" &&
    typeof stored.edit.op_id === "string"
  );
}
