import { useState } from "preact/hooks";
import type { InputHTMLAttributes, PartialInputHTMLAttributes } from "preact";

type Own = "type" | "role" | "value" | "onInput" | "onChange" | "onBlur" | "onKeyDown";

/**
 * A field for what others, and the server's answers, may change at any moment: while somebody types, what is typed stays.
 * `send` gets it when it is whole: on Enter, on a step, or when one goes on to the next. Esc gives it up.
 */
export function Typed(
  props: Omit<PartialInputHTMLAttributes<HTMLInputElement>, Own> & {
    readonly type: "text" | "number";
    readonly value: string | number;
    readonly send: (field: HTMLInputElement) => void;
    /** With every key, for what is sent while it is written. */
    readonly written?: (text: string) => void;
  },
) {
  const { value, send, written, ...rest } = props;
  const [draft, setDraft] = useState<string | null>(null);
  return (
    <input
      // Both kinds of field take all that is left; the types know only one kind at a time.
      {...(rest as InputHTMLAttributes)}
      value={rest.disabled ? value : (draft ?? value)}
      onInput={(event) => {
        setDraft(event.currentTarget.value);
        written?.(event.currentTarget.value);
      }}
      onChange={(event) => {
        send(event.currentTarget);
        setDraft(null);
      }}
      onBlur={() => setDraft(null)}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || draft === null) return;
        setDraft(null);
        written?.(String(value));
        event.stopPropagation();
      }}
    />
  );
}
