/** Light or dark: as the system has it, or as somebody chose in this browser. */

import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

const NAME = "livedrag.theme";

export const chosenTheme = signal<Theme>(read());

/** Puts the theme on the page, now and whenever it is changed. Returns how to stop. */
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
    if (theme === "system") localStorage.removeItem(NAME);
    else localStorage.setItem(NAME, theme);
  } catch {
    // Storage is full or forbidden: the choice then lasts as long as the page.
  }
}

function read(): Theme {
  try {
    const value = globalThis.localStorage?.getItem(NAME);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}
