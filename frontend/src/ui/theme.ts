/** Light or dark: as the system is set, or as chosen in this browser. */

import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const STORAGE_KEY = "livedrag.theme";

export const chosenTheme = signal<Theme>(read());

/** Applies the theme to the page, now and whenever it changes. Returns a function that stops. */
export function followTheme(): () => void {
  return effect(() => {
    const theme = chosenTheme.value;
    if (theme === "system") delete window.document.documentElement.dataset.theme;
    else window.document.documentElement.dataset.theme = theme;
  });
}

export function chooseTheme(theme: Theme): void {
  chosenTheme.value = theme;
  try {
    if (theme === "system") localStorage.removeItem(STORAGE_KEY);
    else localStorage.setItem(STORAGE_KEY, theme);
  } catch {
    // Storage is full or forbidden: the choice lasts until the page is closed.
  }
}

function read(): Theme {
  try {
    const value = globalThis.localStorage?.getItem(STORAGE_KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}
