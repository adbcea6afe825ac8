import type { ComponentChildren } from "preact";

/** A button of the dock: an icon, with a short text where there is room. */
export function DockButton(props: {
  readonly name: string;
  readonly title: string;
  readonly icon: ComponentChildren;
  readonly text?: string;
  /** Of a button that switches something on and off. */
  readonly pressed?: boolean;
  readonly disabled: boolean;
  /** Left out where there is little room and the menu beside it has the same. */
  readonly wideOnly?: boolean;
  readonly onClick: () => void;
}) {
  return (
    <button
      type="button"
      class={`quiet-button ${props.wideOnly ? "not-narrow" : ""}`}
      aria-label={props.name}
      aria-pressed={props.pressed}
      title={props.title}
      disabled={props.disabled}
      onClick={props.onClick}
    >
      {props.icon}
      {props.text && <span>{props.text}</span>}
    </button>
  );
}
