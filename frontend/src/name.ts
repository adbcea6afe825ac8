/** What the person of this browser is called in every room; "" for no name. */

import { effect, signal } from "@preact/signals";

const NAME = "livedrag.name";

export const name = signal(read());

effect(() => {
  const value = name.value;
  try {
    if (value !== "") globalThis.localStorage?.setItem(NAME, value);
  } catch {
    // Storage is full or forbidden: the name then lasts as long as the page.
  }
});

function read(): string {
  try {
    return globalThis.localStorage?.getItem(NAME) ?? "";
  } catch {
    return "";
  }
}
