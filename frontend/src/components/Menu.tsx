import { useId } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { chooseTheme, chosenTheme } from "../theme.ts";
import type { Theme } from "../theme.ts";
import { texts } from "../texts.ts";
import { MoreIcon } from "./icons.tsx";

const THEMES: readonly Theme[] = ["system", "light", "dark"];

/** A button with a small sheet below or above it; the browser closes it on Esc and on a press elsewhere. */
export function Menu(props: {
  readonly name: string;
  readonly icon: ComponentChildren;
  /** Shown beside the icon where there is room. */
  readonly text?: string;
  readonly class: string;
  readonly disabled?: boolean;
  readonly testId?: string;
  readonly children: ComponentChildren;
}) {
  const id = useId();
  return (
    <>
      <button
        type="button"
        class="quiet-button"
        popovertarget={id}
        aria-label={props.name}
        title={props.name}
        disabled={props.disabled ?? false}
        data-testid={props.testId}
      >
        {props.icon}
        {props.text && <span>{props.text}</span>}
      </button>
      <div id={id} popover="auto" class={`menu ${props.class}`} role="group" aria-label={props.name}>
        {props.children}
      </div>
    </>
  );
}

/** Closes the menu that an element is in. */
export function closeMenu(inside: EventTarget | null): void {
  if (inside instanceof Element) inside.closest<HTMLElement>("[popover]")?.hidePopover();
}

export function MenuItem(props: {
  /** The key that does the same. */
  readonly keys?: string;
  readonly onClick: () => void;
  readonly disabled?: boolean;
  readonly children: ComponentChildren;
}) {
  return (
    <button
      type="button"
      class="menu-item"
      disabled={props.disabled ?? false}
      onClick={(event) => {
        closeMenu(event.currentTarget);
        props.onClick();
      }}
    >
      {props.children}
      {props.keys && <kbd class="keys-only">{props.keys}</kbd>}
    </button>
  );
}

/** What there is seldom need for, in one place: on every page the colours, and what the page adds. */
export function MoreMenu({ children }: { readonly children?: ComponentChildren }) {
  return (
    <Menu name={texts.menu.title} icon={<MoreIcon />} class="menu-below" testId="more">
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
