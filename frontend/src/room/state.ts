/** The signals of the store: what the server says, what the person is doing, and the pictures on the canvas. */

import { signal } from "@preact/signals";
import type { Activity } from "./activity.ts";
import type { RoomKey } from "./address.ts";
import type { Preview } from "./frame-decoder.ts";
import type { DragEnd, Size, View } from "./geometry.ts";
import type { Movers } from "./overwrites.ts";
import type { XY } from "./protocol.ts";
import { EMPTY_ROOM } from "./room.ts";
import type { Room } from "./room.ts";
import type { Connection } from "./socket.ts";

export type Tool = "points" | "pin" | "paint" | "erase" | "hand";

/** What the pointer or a key is in the middle of; not sent yet. */
export type Gesture =
  /** Moving one end of a drag. */
  | { readonly kind: "move"; readonly id: string; readonly end: DragEnd; readonly at: XY }
  /** Creating a drag; `target` is null until the pointer has left the handle. */
  | { readonly kind: "create"; readonly handle: XY; readonly target: XY | null }
  /** Moving a pin, or placing a new one. */
  | { readonly kind: "pin"; readonly id: string; readonly at: XY }
  | { readonly kind: "pan" }
  | {
      readonly kind: "stroke";
      readonly mode: "paint" | "erase";
      readonly radius: number;
      readonly points: readonly XY[];
      readonly fill?: boolean;
    };

/** How the area is painted or erased: by a brush, or by what is enclosed or looks alike. */
export type BrushShape = "brush" | "rectangle" | "lasso" | "select";

/** One end of a drag. */
export interface Selection {
  readonly id: string;
  readonly end: DragEnd;
}

export interface Toast {
  readonly id: number;
  readonly kind: "error" | "info";
  readonly text: string;
}

// From the server
export const roomKey = signal<RoomKey | null>(null);
export const room = signal<Room>(EMPTY_ROOM);
export const connection = signal<Connection>({ state: "connecting" });
/** Newest last. */
export const activity = signal<readonly Activity[]>([]);

export const movers = signal<Movers>({});

// What the person is doing
export const tool = signal<Tool>("points");
/** In pixels of the picture; 0 until the picture's size is known. */
export const brushRadius = signal(0);
/** From 0, a hard edge, to 1. */
export const brushSoftness = signal(0);
export const brushShape = signal<BrushShape>("brush");
/** How much colours may differ that are selected together, in [0, 1]. */
export const tolerance = signal(0.12);
export const gesture = signal<Gesture | null>(null);
/** A handle that was placed and has no target yet. */
export const pendingHandle = signal<XY | null>(null);
/** The keyboard's pointer, or null. */
export const crosshair = signal<XY | null>(null);
/** Where the mouse is over the picture; null elsewhere, and for touch. */
export const pointer = signal<XY | null>(null);
/** Where a finger is on the canvas while it places something, in CSS pixels; it hides what is below it. */
export const finger = signal<XY | null>(null);
export const hovered = signal<Selection | null>(null);
export const selected = signal<Selection | null>(null);
/** The person whose view is followed, or null. */
export const followed = signal<string | null>(null);
export const selectedPin = signal<string | null>(null);
/** Whether the original is held up for comparison. */
export const comparing = signal(false);
/** Where the split view's divider is, in [0, 1] of the picture's width; null if there is none. */
export const split = signal<number | null>(null);
/** Whether original and result are shown beside each other, over the canvas. */
export const sideBySide = signal(false);
/** Whether the canvas shows original and result in turns. */
export const flickering = signal(false);
export const maskShown = signal(true);
/** Holding the space bar turns every tool into the hand. */
export const spaceHeld = signal(false);
/** Read out to screen readers, not shown. */
export const announcement = signal("");
export const toasts = signal<readonly Toast[]>([]);

/** Where the person moved the picture; null while it fits the canvas. */
export const camera = signal<View | null>(null);
/** In CSS pixels; 0 before the first layout. */
export const canvasSize = signal<Size>({ width: 0, height: 0 });

/** Drags added or re-aimed since the last run ended, which the result does not show yet. */
export const unrenderedDrags = signal<ReadonlySet<string>>(new Set());

// Pictures
export const original = signal<ImageBitmap | null>(null);
export const result = signal<ImageBitmap | null>(null);
export const preview = signal<Preview | null>(null);
/** Previews shown since the room was opened. */
export const previewCount = signal(0);
/** The stored iteration that is looked at, or null. */
export const scrubbed = signal<{ readonly id: number; readonly bitmap: ImageBitmap } | null>(null);
/** Whether the canvas shows a quick preview that moves anything. */
export const quickPreviewShown = signal(false);
/** Whether the server is keeping the quick preview at this moment. */
export const keepingPreview = signal(false);
/** Uploaded masks by digest; white has become opaque. */
export const rasters = signal<ReadonlyMap<string, HTMLCanvasElement>>(new Map());

const MAX_TOASTS = 4;
// Milliseconds.
const ERROR_SHOWN = 10_000;
const INFO_SHOWN = 4_000;

let lastToast = 0;

export function toast(kind: Toast["kind"], text: string): void {
  if (toasts.value.some((other) => other.text === text)) return;
  const id = ++lastToast;
  toasts.value = [...toasts.value, { id, kind, text }].slice(-MAX_TOASTS);
  setTimeout(() => dismissToast(id), kind === "error" ? ERROR_SHOWN : INFO_SHOWN);
}

export function dismissToast(id: number): void {
  toasts.value = toasts.value.filter((other) => other.id !== id);
}

/** Closes all pictures and goes back to the state before any room was opened. Toasts stay. */
export function resetStore(): void {
  original.value?.close();
  result.value?.close();
  preview.value?.bitmap.close();
  roomKey.value = null;
  room.value = EMPTY_ROOM;
  activity.value = [];
  scrubbed.value = null;
  connection.value = { state: "connecting" };
  tool.value = "points";
  brushRadius.value = 0;
  brushSoftness.value = 0;
  brushShape.value = "brush";
  tolerance.value = 0.12;
  gesture.value = null;
  pendingHandle.value = null;
  crosshair.value = null;
  pointer.value = null;
  finger.value = null;
  hovered.value = null;
  selected.value = null;
  selectedPin.value = null;
  followed.value = null;
  movers.value = {};
  comparing.value = false;
  split.value = null;
  sideBySide.value = false;
  flickering.value = false;
  maskShown.value = true;
  spaceHeld.value = false;
  camera.value = null;
  announcement.value = "";
  unrenderedDrags.value = new Set();
  original.value = null;
  result.value = null;
  preview.value = null;
  previewCount.value = 0;
  quickPreviewShown.value = false;
  keepingPreview.value = false;
  rasters.value = new Map();
}
