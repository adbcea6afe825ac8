import type { ComponentChildren } from "preact";

/** A radio button or a checkbox with a name and what it means. */
export function Option(props: {
  readonly type: "radio" | "checkbox";
  /** Of the group that a radio button belongs to. */
  readonly group?: string;
  readonly name: string;
  readonly detail?: string | undefined;
  readonly checked: boolean;
  readonly disabled?: boolean;
  readonly onChoose: () => void;
  /** Below the detail. */
  readonly children?: ComponentChildren;
}) {
  return (
    <label class="option">
      <input
        type={props.type}
        name={props.group}
        checked={props.checked}
        disabled={props.disabled ?? false}
        onChange={props.onChoose}
      />
      <span>
        <strong>{props.name}</strong>
        {props.detail && <small>{props.detail}</small>}
        {props.children}
      </span>
    </label>
  );
}
