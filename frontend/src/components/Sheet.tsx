import type { Signal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { texts } from "../texts.ts";
import { CloseIcon } from "./icons.tsx";

/** A dialog over the page; Esc, the cross and a press beside it close it. */
export function Sheet(props: {
  readonly open: Signal<boolean>;
  readonly title: string;
  readonly children: ComponentChildren;
}) {
  const { open, title, children } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    if (open.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open.value]);
  return (
    <dialog
      ref={dialog}
      class="sheet"
      aria-labelledby={id}
      onClose={() => (open.value = false)}
      onClick={(event) => {
        if (event.target === event.currentTarget) open.value = false;
      }}
    >
      <div class="sheet-head">
        <h2 id={id}>{title}</h2>
        <button
          type="button"
          class="icon-button"
          aria-label={texts.shortcuts.close}
          onClick={() => (open.value = false)}
        >
          <CloseIcon />
        </button>
      </div>
      {children}
    </dialog>
  );
}
