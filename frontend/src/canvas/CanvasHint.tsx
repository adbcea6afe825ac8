import * as store from "../room/store.ts";
import { isTouch } from "../ui/touch.ts";
import { cancel } from "./pointer.ts";
import { texts } from "./texts.ts";

const labels = texts.hints;

/** What to do next, if there is anything to say. */
export function CanvasHint() {
  const hint = hintText();
  if (hint === null) return null;
  const cancellable = store.pendingHandle.value !== null || store.crosshair.value !== null;
  return (
    <p class="hint">
      <span data-testid="hint">{hint}</span>
      {cancellable && (
        <button type="button" title="Esc" onClick={() => cancel()}>
          {labels.cancel}
        </button>
      )}
    </p>
  );
}

function hintText(): string | null {
  const tool = store.tool.value;
  if (store.comparing.value || !store.editable.value || tool === "hand") return null;
  if (tool === "pin") return pinHint();
  return tool === "points" ? pointHint() : brushHint(tool);
}

function pointHint(): string | null {
  const pending = store.pendingHandle.value !== null;
  if (store.crosshair.value !== null) return pending ? labels.crosshairTarget : labels.crosshairHandle;
  const touch = isTouch();
  if (pending) return touch ? labels.targetTouch : labels.target;
  if (store.drags.value.length > 0 || store.gesture.value !== null) return null;
  return touch ? labels.handleTouch : labels.handle;
}

function pinHint(): string | null {
  if (store.crosshair.value !== null) return labels.crosshairPin;
  if (store.pins.value.length > 0) return null;
  return isTouch() ? labels.pinTouch : labels.pin;
}

function brushHint(brush: "paint" | "erase"): string | null {
  if (store.crosshair.value !== null) return labels.crosshairBrush;
  const shape = store.brushShape.value;
  if (shape === "select") return isTouch() ? labels.selectTouch : labels.select;
  if (shape !== "brush") return labels[shape];
  return store.mask.value.length > 0 ? null : labels[brush];
}
