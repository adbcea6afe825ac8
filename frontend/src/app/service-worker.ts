import { base } from "../room/address.ts";

/** Lets the page open without the server; browsers allow it on https and on this machine only. */
export function registerServiceWorker(): void {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  // Afterwards, so that it doesn't compete with the page for the connection.
  window.addEventListener("load", () => {
    // Private windows of some browsers have none; the page works without it.
    navigator.serviceWorker.register(`${base}/service-worker.js`).catch(() => undefined);
  });
}
