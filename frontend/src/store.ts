/** The one store: signals for what the server says, what the person is doing, and what is on the canvas. */

import { computed, signal } from "@preact/signals";
import type { Activity } from "./activity.ts";
import type { Key } from "./api.ts";
import type { Preview } from "./frames.ts";
import { covered, distance, fit, keepInSight } from "./geometry.ts";
import type { End, Size, View } from "./geometry.ts";
import { branchesOf, lineThrough } from "./moments.ts";
import type { MaskLayer, XY } from "./protocol.ts";
import { EMPTY, current, isRunning, isStarting, isStopping, visible, waitingDrags } from "./room.ts";
import type { Room } from "./room.ts";
import type { Connection } from "./socket.ts";
import { texts } from "./texts.ts";
import type { Ends } from "./warp.ts";

export type Tool = "points" | "paint" | "erase" | "hand";

/** What the pointer or the keys are in the middle of; nobody else knows of it yet. */
export type Gesture =
  /** Moving one end of a drag. */
  | { readonly kind: "move"; readonly id: string; readonly end: End; readonly at: XY }
  /** Pulling a target out of a handle that was just put down. */
  | { readonly kind: "pull"; readonly handle: XY; readonly target: XY | null }
  /** Moving the picture about. */
  | { readonly kind: "pan" }
  | {
      readonly kind: "stroke";
      readonly mode: "paint" | "erase";
      readonly radius: number;
      readonly points: readonly XY[];
    };

export interface Selection {
  readonly id: string;
  readonly end: End;
}

export interface Toast {
  readonly id: number;
  readonly kind: "error" | "info";
  readonly text: string;
}

/** A drag as the page shows it: gesture and tracking worked in. Places in pixels of the picture. */
export interface ShownDrag {
  readonly id: string;
  /** From 1, in the order put down; also picks the colour. */
  readonly n: number;
  /** Where the person put it, and the way is counted from. */
  readonly start: XY;
  /** Where the content is now. */
  readonly handle: XY;
  readonly target: XY;
  readonly distance: number;
  /** In [0, 1]. */
  readonly covered: number;
  readonly trail: readonly XY[];
  readonly moving: boolean;
  /** Changed here while the connection was lost, and not known to the others yet. */
  readonly waiting: boolean;
}

/** Somebody else in the room, as the canvas shows them. */
export interface ShownPerson {
  readonly id: string;
  /** Their name, and what they are doing. */
  readonly label: string;
  readonly colour: string;
  readonly cursor: XY | null;
  /** The drag that they have selected. */
  readonly selected: string | null;
  readonly busy: boolean;
}

/** What to warp for the instant guess, and how: places in pixels of the picture. */
export interface Guess {
  readonly of: "original" | "result";
  readonly drags: readonly Ends[];
}

// From the server
export const key = signal<Key | null>(null);
export const room = signal<Room>(EMPTY);
export const connection = signal<Connection>({ state: "connecting" });
/** Who did what, the newest last. */
export const activity = signal<readonly Activity[]>([]);

// What the person is doing
export const tool = signal<Tool>("points");
/** Brush radius in pixels of the picture; 0 until the picture's size is known. */
export const brush = signal(0);
export const gesture = signal<Gesture | null>(null);
/** A handle that waits for its target. */
export const half = signal<XY | null>(null);
/** The keyboard's pointer; null while it is put away. */
export const crosshair = signal<XY | null>(null);
/** Where the mouse is over the picture; null elsewhere and for fingers. */
export const pointer = signal<XY | null>(null);
export const hovered = signal<Selection | null>(null);
export const selected = signal<Selection | null>(null);
export const comparing = signal(false);
export const toasts = signal<readonly Toast[]>([]);
/** Where the split between original (before it) and result lies, in [0, 1] of the picture's width; null while there is none. */
export const split = signal<number | null>(null);
/** From 0, a hard edge, to 1. */
export const softness = signal(0);
/** Whether the mask is drawn. */
export const maskShown = signal(true);
/** Held down, the space bar turns every tool into the hand. */
export const spaceHeld = signal(false);
/** Said to screen readers, not shown. */
export const announcement = signal("");

/** Where the person has put the picture; null while it fits the canvas by itself. */
export const camera = signal<View | null>(null);
/** The canvas's size in CSS pixels; 0 while there is none. */
export const canvasSize = signal<Size>({ width: 0, height: 0 });

/** Drags put down or re-aimed since the last run ended: what the result does not show yet. */
export const aimed = signal<ReadonlySet<string>>(new Set());

// Pictures
export const original = signal<ImageBitmap | null>(null);
/** Whether the uploaded picture seems to be a photograph. */
export const photograph = signal(false);
export const result = signal<ImageBitmap | null>(null);
export const preview = signal<Preview | null>(null);
/** A kept iteration that is looked at; null for none. */
export const scrub = signal<{ readonly id: number; readonly bitmap: ImageBitmap } | null>(null);
/** Whether the canvas shows a guess: one that moves anything. */
export const guessing = signal(false);
/** Previews shown since the room was opened. */
export const previews = signal(0);
/** Loaded masks by digest: white became opaque. */
export const rasters = signal<ReadonlyMap<string, CanvasImageSource>>(new Map());

export const document = computed(() => visible(room.value));
export const picture = computed(() => document.value?.picture ?? null);
/** Where the picture lies on the canvas. */
export const view = computed<View>(() => {
  const bounds = canvasSize.value;
  const size = picture.value;
  if (size === null) return { scale: 1, x: 0, y: 0 };
  return camera.value === null
    ? fit(size, bounds, bounds.width < NARROW ? 14 : 28)
    : keepInSight(camera.value, size, bounds);
});
/** The tool that a press would use. */
export const inHand = computed<Tool>(() => (spaceHeld.value || !editable.value ? "hand" : tool.value));
/** The brush in hand, or null. */
export const brushing = computed(() => (inHand.value === "paint" || inHand.value === "erase" ? inHand.value : null));
export const mask = computed<readonly MaskLayer[]>(() => document.value?.mask ?? NO_LAYERS);
/** The stroke under the brush. */
export const stroke = computed(() => (gesture.value?.kind === "stroke" ? gesture.value : null));
export const running = computed(() => isRunning(document.value));
export const starting = computed(() => isStarting(room.value));
export const stopping = computed(() => isStopping(room.value));
export const connected = computed(() => connection.value.state === "open");
export const editable = computed(() => room.value.role !== "viewer");
export const waitingEdits = computed(() => room.value.pending.length);

export const drags = computed<readonly ShownDrag[]>(() => {
  const now = document.value;
  if (now === null) return [];
  const doing = gesture.value;
  const waiting = new Set(waitingDrags(room.value, connected.value));
  return Object.entries(now.drags).map(([id, drag], index) => {
    const moving = doing?.kind === "move" && doing.id === id ? doing : null;
    const start = moving?.end === "handle" ? moving.at : drag.handle;
    const handle = moving?.end === "handle" ? moving.at : current(drag);
    const target = moving?.end === "target" ? moving.at : drag.target;
    return {
      id,
      n: index + 1,
      start,
      handle,
      target,
      distance: distance(handle, target),
      covered: covered(start, handle, target),
      trail: moving?.end === "handle" ? [] : (room.value.trails[id] ?? []),
      moving: moving !== null,
      waiting: waiting.has(id),
    };
  });
});

/** Which picture the canvas shows. A run's previews, once there is one; then its result; else the uploaded picture. */
export const showing = computed<"original" | "preview" | "result" | "moment">(() => {
  if (comparing.value) return "original";
  if (scrub.value !== null) return "moment";
  const live = preview.value;
  if (live !== null && live.frame.run === document.value?.run?.id) return "preview";
  return result.value !== null && document.value?.result ? "result" : "original";
});

/** The split, where there is something to compare. */
export const splitShown = computed(() => (showing.value === "original" && !guessing.value ? null : split.value));

/** Who else is here. */
export const others = computed<readonly ShownPerson[]>(() => {
  const { people, presences, person: me } = room.value;
  return Object.entries(presences).flatMap(([id, presence]) => {
    const person = people[id];
    if (id === me || person === undefined || !person.here) return [];
    const doing = presence.busy ? texts.people.doing[presence.tool] : "";
    const label = [person.name || texts.people.somebody, doing].filter(Boolean).join(" · ");
    return [
      { id, label, colour: person.colour, cursor: presence.cursor, selected: presence.selected, busy: presence.busy },
    ];
  });
});

/** Every way that was gone. */
export const branches = computed(() => branchesOf(room.value.moments));
/** The timeline's line through where the room is. */
export const line = computed(() =>
  lineThrough(room.value.moments, room.value.moment ?? document.value?.moment ?? null),
);

/**
 * What the canvas guesses until a run shows better: null while there is nothing to guess, and while somebody looks for
 * a place on the picture as it is: for a handle or for the brush.
 */
export const guess = computed<Guess | null>(() => {
  const of = showing.value;
  const now = document.value;
  const doing = gesture.value;
  if (comparing.value || of === "preview" || of === "moment" || now === null || original.value === null) return null;
  if (tool.value === "paint" || tool.value === "erase" || half.value !== null || crosshair.value !== null) return null;
  if (doing?.kind === "move" && (doing.end === "handle" || running.value)) return null;
  const found: Ends[] = [];
  let moves = false;
  for (const drag of drags.value) {
    const ahead = now.drags[drag.id]?.tracked == null || aimed.value.has(drag.id) || drag.moving;
    const handle = of === "original" ? drag.start : drag.handle;
    // Of a picture that no run has changed yet, all that the run is about to do can be guessed.
    const moved = ahead || (of === "original" && running.value);
    // What a run has brought to its place stays there.
    if (moved) moves = true;
    else if (of === "original") continue;
    found.push({ handle, target: moved ? drag.target : handle });
  }
  if (doing?.kind === "pull") {
    if (doing.target === null || running.value) return null;
    found.push({ handle: doing.handle, target: doing.target });
    moves = true;
  }
  return moves ? { of, drags: found } : null;
});

const NO_LAYERS: readonly MaskLayer[] = [];

/** Canvases narrower than this, in CSS pixels, can't spare wide margins. */
const NARROW = 560;

let lastToast = 0;

export function toast(kind: Toast["kind"], text: string): void {
  if (toasts.value.some((other) => other.text === text)) return;
  const id = ++lastToast;
  toasts.value = [...toasts.value, { id, kind, text }].slice(-4);
  setTimeout(() => dismiss(id), kind === "error" ? 10_000 : 4_000);
}

export function dismiss(id: number): void {
  toasts.value = toasts.value.filter((other) => other.id !== id);
}

/** As before any room was opened; pictures are closed, toasts stay. */
export function clear(): void {
  original.value?.close();
  result.value?.close();
  preview.value?.bitmap.close();
  key.value = null;
  room.value = EMPTY;
  activity.value = [];
  scrub.value = null;
  connection.value = { state: "connecting" };
  tool.value = "points";
  brush.value = 0;
  gesture.value = null;
  half.value = null;
  crosshair.value = null;
  pointer.value = null;
  hovered.value = null;
  selected.value = null;
  comparing.value = false;
  split.value = null;
  maskShown.value = true;
  softness.value = 0;
  spaceHeld.value = false;
  camera.value = null;
  announcement.value = "";
  aimed.value = new Set();
  original.value = null;
  photograph.value = false;
  result.value = null;
  preview.value = null;
  previews.value = 0;
  guessing.value = false;
  rasters.value = new Map();
}
