/** Showing the original and the result in turns, at the same place, so that the eye catches what has changed. */

import * as store from "../room/store.ts";

/** Milliseconds for which each is shown: slower than three flashes a second. */
const FLICKER_TIME = 500;

let timer: ReturnType<typeof setInterval> | undefined;

export function toggleFlicker(): void {
  if (store.flickering.value) stopFlicker();
  else if (store.showing.value !== "original") {
    store.flickering.value = true;
    store.comparing.value = true;
    timer = setInterval(() => (store.comparing.value = !store.comparing.value), FLICKER_TIME);
  }
}

/** Returns whether it was on. */
export function stopFlicker(): boolean {
  const was = store.flickering.value;
  clearInterval(timer);
  if (was) store.comparing.value = false;
  store.flickering.value = false;
  return was;
}
