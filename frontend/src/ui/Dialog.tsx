import { useSignal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { CloseIcon } from "./icons.tsx";
import { texts } from "./texts.ts";

/** A modal dialog, closed by Esc, by its cross and by a press outside. */
export function Dialog(props: {
  /** Without it, the dialog is open from when it is mounted; `onClose` then unmounts it. */
  readonly open?: Signal<boolean>;
  readonly title: string;
  readonly onClose?: () => void;
  readonly wide?: boolean;
  readonly children: ComponentChildren;
}) {
  const { title, children, onClose } = props;
  const mounted = useSignal(true);
  const open = props.open ?? mounted;
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    if (open.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open.value]);
  const close = () => (open.value = false);
  return (
    <dialog
      ref={dialog}
      class={`dialog ${props.wide ? "is-wide" : ""}`}
      aria-labelledby={id}
      onClose={() => {
        close();
        onClose?.();
      }}
      onClick={(event) => event.target === event.currentTarget && close()}
    >
      <div class="dialog-head">
        <h2 id={id}>{title}</h2>
        <button type="button" class="icon-button" aria-label={texts.close} onClick={close}>
          <CloseIcon />
        </button>
      </div>
      <div class="dialog-body">{children}</div>
    </dialog>
  );
}
