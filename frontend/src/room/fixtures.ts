/** Rooms for the specs. */

import type { Document, ModelInfo, Run } from "./protocol.ts";
import { receive } from "./room.ts";
import type { Room } from "./room.ts";
import * as store from "./store.ts";

export const blankDocument: Document = {
  picture: { sha256: "0".repeat(64), width: 200, height: 100 },
  drags: {},
  mask: [],
  prompt: "",
  settings: {},
  run: null,
  result: null,
  moment: null,
  pins: {},
  title: "",
};

export const oneDrag: Document = {
  ...blankDocument,
  drags: { d1: { handle: [50, 50], target: [90, 50], tracked: null } },
};

export const model: ModelInfo = {
  name: "m",
  kind: "builtin",
  settings: {},
  presets: [],
  ranges: {},
  live: [],
  words: {},
  choices: {},
  unsuitable: {},
};

export const bitmap = { width: 200, height: 100, close: () => undefined } as unknown as ImageBitmap;

export function runOf(changes: Partial<Run> = {}): Run {
  return { id: "r1", by: "me", iterations: 0, outcome: null, interrupted: false, message: null, ...changes };
}

/** Puts the store into a room, connected and with its picture on the canvas. */
export function openRoom(document: Document = blankDocument, changes: Partial<Room> = {}): void {
  store.resetStore();
  store.toasts.value = [];
  store.roomKey.value = { room: "r", secret: "s" };
  store.connection.value = { state: "open" };
  store.canvasSize.value = { width: 256, height: 156 };
  store.original.value = bitmap;
  const opened = receive(store.room.value, { type: "snapshot", seq: 1, document });
  store.room.value = { ...opened, person: "me", model, ...changes };
}

/** The requests that have not been answered. */
export function pendingRequests(): readonly object[] {
  return store.room.value.pending;
}
