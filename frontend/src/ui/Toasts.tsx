import { CloseIcon } from "./icons.tsx";
import { texts } from "./texts.ts";

export function Toasts(props: {
  readonly toasts: readonly { readonly id: number; readonly kind: "error" | "info"; readonly text: string }[];
  readonly dismiss: (id: number) => void;
}) {
  return (
    <div class="toasts">
      {props.toasts.map(({ id, kind, text }) => (
        <div key={id} class={`toast toast-${kind}`} role={kind === "error" ? "alert" : "status"} data-testid="toast">
          <span>{text}</span>
          <button type="button" class="icon-button" aria-label={texts.dismiss} onClick={() => props.dismiss(id)}>
            <CloseIcon />
          </button>
        </div>
      ))}
    </div>
  );
}
