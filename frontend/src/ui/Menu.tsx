import { useId } from "preact/hooks";
import type { ComponentChildren } from "preact";

/** A button with a popover, which the browser closes on Esc and on a press elsewhere. */
export function Menu(props: {
  readonly name: string;
  readonly icon: ComponentChildren;
  /** Shown beside the icon if there is room. */
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

export function MenuItem(props: {
  /** Shown beside the text. */
  readonly shortcut?: string;
  readonly title?: string;
  readonly onClick: () => void;
  readonly disabled?: boolean;
  readonly children: ComponentChildren;
}) {
  return (
    <button
      type="button"
      class="menu-item"
      title={props.title}
      disabled={props.disabled ?? false}
      onClick={(event) => {
        event.currentTarget.closest<HTMLElement>("[popover]")?.hidePopover();
        props.onClick();
      }}
    >
      {props.children}
      {props.shortcut && <kbd class="keys-only">{props.shortcut}</kbd>}
    </button>
  );
}
