import { useState } from "preact/hooks";
import type { InputHTMLAttributes, PartialInputHTMLAttributes } from "preact";

type OwnAttribute = "type" | "role" | "value" | "onInput" | "onChange" | "onBlur" | "onKeyDown";

/**
 * An input whose value other people may change at any moment. What is being typed stays until it is committed by Enter,
 * by a step or by leaving the input; Esc discards it.
 */
export function DraftInput(
  props: Omit<PartialInputHTMLAttributes<HTMLInputElement>, OwnAttribute> & {
    readonly type: "text" | "number";
    readonly value: string | number;
    readonly onCommit: (input: HTMLInputElement) => void;
    /** Called with every change of the draft. */
    readonly onDraft?: (text: string) => void;
  },
) {
  const { value, onCommit, onDraft, ...rest } = props;
  const [draft, setDraft] = useState<string | null>(null);
  return (
    <input
      // Both types of input take these; Preact's types know only one at a time.
      {...(rest as InputHTMLAttributes)}
      value={rest.disabled ? value : (draft ?? value)}
      onInput={(event) => {
        setDraft(event.currentTarget.value);
        onDraft?.(event.currentTarget.value);
      }}
      onChange={(event) => {
        onCommit(event.currentTarget);
        setDraft(null);
      }}
      onBlur={() => setDraft(null)}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || draft === null) return;
        setDraft(null);
        onDraft?.(String(value));
        event.stopPropagation();
      }}
    />
  );
}
