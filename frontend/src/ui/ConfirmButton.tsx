import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { texts } from "./texts.ts";

/** A button that asks before it does something. Cancel and Esc lead back to it. */
export function ConfirmButton(props: {
  readonly class: string;
  /** The button's name, where its content is an icon. */
  readonly label?: string;
  readonly children: ComponentChildren;
  readonly question: string;
  readonly confirm: string;
  readonly onConfirm: () => void;
}) {
  const { label, children, question, confirm, onConfirm } = props;
  const [asking, setAsking] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  const cancel = useRef<HTMLButtonElement>(null);
  // At once: an Esc that came before would close the dialog around it.
  useLayoutEffect(() => {
    if (asking) cancel.current?.focus();
  }, [asking]);
  const close = () => {
    setAsking(false);
    button.current?.focus();
  };
  return (
    <>
      <button
        ref={button}
        type="button"
        class={props.class}
        aria-label={label}
        title={label}
        aria-expanded={asking}
        onClick={() => setAsking(!asking)}
      >
        {children}
      </button>
      {asking && (
        <div
          class="confirm"
          role="alertdialog"
          aria-label={question}
          onKeyDown={(event) => {
            if (event.key !== "Escape") return;
            // Not the dialog around it.
            event.preventDefault();
            event.stopPropagation();
            close();
          }}
        >
          <p>{question}</p>
          <div class="row">
            <button
              type="button"
              class="small-button is-bad"
              onClick={() => {
                close();
                onConfirm();
              }}
            >
              {confirm}
            </button>
            <button ref={cancel} type="button" class="small-button" onClick={close}>
              {texts.cancel}
            </button>
          </div>
        </div>
      )}
    </>
  );
}
