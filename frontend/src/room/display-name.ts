/** The name that this browser's user shows in every room; "" for none. */

import { effect, signal } from "@preact/signals";

const STORAGE_KEY = "livedrag.name";

export const displayName = signal(read());

effect(() => {
  const name = displayName.value;
  try {
    if (name !== "") globalThis.localStorage?.setItem(STORAGE_KEY, name);
  } catch {
    // Storage is full or forbidden: the name lasts until the page is closed.
  }
});

function read(): string {
  try {
    return globalThis.localStorage?.getItem(STORAGE_KEY) ?? "";
  } catch {
    return "";
  }
}
