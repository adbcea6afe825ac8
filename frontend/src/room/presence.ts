/** Sends the others in the room what this person points at, has selected and is doing. */

import { effect } from "@preact/signals";
import { currentSession } from "./current-session.ts";
import type { Session } from "./current-session.ts";
import { displayName } from "./display-name.ts";
import { sightOf } from "./follow-view.ts";
import { roundPlace } from "./geometry.ts";
import type { Presence } from "./protocol.ts";
import * as store from "./store.ts";

/** Milliseconds between two presences, at least. */
const INTERVAL = 40;

/** Sends the newest presence while there is anyone to see it. Returns a function that stops. */
export function sharePresence(session: Session): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let lastSent = "";
  const send = () => {
    timer = undefined;
    if (currentSession() !== session || !session.synced) return;
    const presence = ownPresence();
    const text = JSON.stringify(presence);
    if (text !== lastSent && session.socket.send({ type: "presence", ...presence })) lastSent = text;
  };
  const stop = effect(() => {
    ownPresence();
    // Someone who has just joined has not seen the last one.
    if (!store.connected.value || !hasCompany()) lastSent = "";
    else timer ??= setTimeout(send, INTERVAL);
  });
  return () => {
    stop();
    clearTimeout(timer);
  };
}

/** What the others see beside our cursor. */
export function setDisplayName(name: string): void {
  displayName.value = name;
  currentSession()?.socket.send({ type: "name", name });
}

function hasCompany(): boolean {
  const { people, person: me } = store.room.value;
  return Object.entries(people).some(([person, { here }]) => here && person !== me);
}

function ownPresence(): Presence {
  const cursor = store.crosshair.value ?? store.pointer.value;
  const tool = { points: "points", pin: "points", paint: "brush", erase: "eraser", hand: "hand" } as const;
  const gesture = store.gesture.value?.kind;
  return {
    cursor: cursor === null ? null : roundPlace(cursor),
    selected: store.selected.value?.id ?? null,
    tool: tool[store.tool.value],
    view: store.camera.value === null ? null : sightOf(store.view.value, store.canvasSize.value),
    busy: gesture === "stroke" || gesture === "move" || gesture === "pin" || gesture === "create",
  };
}
