/** Keeping the quick preview as the result. */

import { canRun } from "./actions.ts";
import { keepQuickPreview } from "./api.ts";
import { messageOf } from "./http.ts";
import * as store from "./store.ts";
import { texts } from "./texts.ts";

/** Whether what the quick preview shows is what would be kept: the original, moved; never a run's result, moved. */
export function canKeepPreview(): boolean {
  const document = store.document.value;
  const ofOriginal = document?.result === null || document?.run?.outcome === "kept";
  return canRun() && ofOriginal && store.quickPreview.value !== null && !store.keepingPreview.value;
}

export async function keepPreview(): Promise<void> {
  const key = store.roomKey.value;
  if (key === null || !canKeepPreview()) return;
  store.keepingPreview.value = true;
  try {
    await keepQuickPreview(key);
  } catch (error) {
    store.toast("error", texts.errors.keepFailed(messageOf(error)));
  } finally {
    store.keepingPreview.value = false;
  }
}
