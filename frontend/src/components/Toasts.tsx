import { dismiss } from "../store.ts";
import type { Toast } from "../store.ts";
import { texts } from "../texts.ts";
import { CloseIcon } from "./icons.tsx";

export function Toasts({ toasts }: { readonly toasts: readonly Toast[] }) {
  return (
    <div class="toasts">
      {toasts.map((toast) => (
        <div
          key={toast.id}
          class={`toast toast-${toast.kind}`}
          role={toast.kind === "error" ? "alert" : "status"}
          data-testid="toast"
        >
          <span>{toast.text}</span>
          <button type="button" class="icon-button" aria-label={texts.dismiss} onClick={() => dismiss(toast.id)}>
            <CloseIcon />
          </button>
        </div>
      ))}
    </div>
  );
}
