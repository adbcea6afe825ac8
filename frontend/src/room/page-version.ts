/** Replaces a page that is older than the server. Unsent edits are stored in the browser and survive it. */

import { effect } from "@preact/signals";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

/** The page that was loaded to replace an older one, so that a cache in between is asked only once. */
const STORAGE_KEY = "livedrag.reloaded";
/** Milliseconds to read why the page reloads. */
const READING_TIME = 2_500;

/** This page's script, which names all others; "" while developing. */
const own = import.meta.env.PROD ? fileOf(pageScript()) : "";

let reloading = false;

/** `served` names the script of the page that the server has now; "" if it has none. */
export function replaceOlderPage(served: string, loaded = own): void {
  if (served === "" || loaded === "" || served === loaded || reloading) return;
  if (!rememberReload(served)) {
    store.toast("error", texts.page.older);
    return;
  }
  reloading = true;
  store.toast("info", texts.page.reloading);
  setTimeout(reloadWhenIdle, READING_TIME);
}

/** Waits for the end of what the pointer is doing, and commits what is being typed. */
function reloadWhenIdle(): void {
  let reloads = false;
  effect(() => {
    if (store.gesture.value !== null || store.pendingHandle.value !== null || reloads) return;
    reloads = true;
    if (window.document.activeElement instanceof HTMLElement) window.document.activeElement.blur();
    // The edit that this makes is stored at once, even if it can't be sent.
    window.location.reload();
  });
}

/** Returns whether this is new. */
function rememberReload(page: string): boolean {
  try {
    if (sessionStorage.getItem(STORAGE_KEY) === page) return false;
    sessionStorage.setItem(STORAGE_KEY, page);
    return true;
  } catch {
    // Without storage, a reload might never end.
    return false;
  }
}

function pageScript(): string {
  return globalThis.document?.querySelector<HTMLScriptElement>("script[type=module][src]")?.src ?? "";
}

function fileOf(url: string): string {
  return url.split("/").at(-1) ?? "";
}
