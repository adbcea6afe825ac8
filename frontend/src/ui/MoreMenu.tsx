import type { ComponentChildren } from "preact";
import { MoreIcon } from "./icons.tsx";
import { Menu } from "./Menu.tsx";
import { texts } from "./texts.ts";
import { chooseTheme, chosenTheme } from "./theme.ts";
import type { Theme } from "./theme.ts";

const THEMES: readonly Theme[] = ["system", "light", "dark"];

/** The menu of what is rarely needed: the page's own items, and the theme. */
export function MoreMenu({ children }: { readonly children?: ComponentChildren }) {
  return (
    <Menu name={texts.more} icon={<MoreIcon />} class="menu-below" testId="more">
      {children}
      <fieldset class="themes">
        <legend>{texts.theme.title}</legend>
        {THEMES.map((theme) => (
          <label key={theme} class="theme">
            <input
              type="radio"
              name="theme"
              value={theme}
              checked={chosenTheme.value === theme}
              onChange={() => chooseTheme(theme)}
            />
            <span>{texts.theme.choices[theme]}</span>
          </label>
        ))}
      </fieldset>
    </Menu>
  );
}
