/** The name that this browser's user shows in every room; "" for none. */

import { effect, signal } from "@preact/signals";

const STORAGE_KEY = "livedrag.name";

const ASKED_KEY = "livedrag.name-asked";

export const displayName = signal(read(STORAGE_KEY));
/** Whether this browser's user was asked for a name and gave none. */
export const askedForName = signal(read(ASKED_KEY) !== "");

effect(() => write(STORAGE_KEY, displayName.value));
effect(() => write(ASKED_KEY, askedForName.value ? "yes" : ""));

function read(key: string): string {
  try {
    return globalThis.localStorage?.getItem(key) ?? "";
  } catch {
    return "";
  }
}

function write(key: string, value: string): void {
  try {
    if (value !== "") globalThis.localStorage?.setItem(key, value);
  } catch {
    // Storage is full or forbidden: it lasts until the page is closed.
  }
}
