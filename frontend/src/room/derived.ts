/** What follows from the store's signals. */

import { computed } from "@preact/signals";
import { currentPlace, isRunning } from "./document.ts";
import { isEditable } from "./editable-area.ts";
import { distance, fit, keepInSight, progressOf } from "./geometry.ts";
import type { DragEnds, View } from "./geometry.ts";
import { isOpaqueAt } from "./mask-files.ts";
import { movedSquare } from "./moved-square.ts";
import type { Square } from "./moved-square.ts";
import type { MaskLayer, XY } from "./protocol.ts";
import { isStarting, isStopping, visibleDocument, waitingDrags } from "./room.ts";
import * as state from "./state.ts";
import type { Tool } from "./state.ts";
import { texts } from "./texts.ts";
import { branchesOf, pathThrough } from "./timeline.ts";

/** A drag as the page shows it, gesture and tracking included. Places in pixels of the picture. */
export interface ShownDrag {
  readonly id: string;
  /** From 1, in the order added; also picks the colour. */
  readonly number: number;
  /** Where the handle was placed. */
  readonly start: XY;
  /** Where the content is now. */
  readonly handle: XY;
  readonly target: XY;
  readonly distance: number;
  /** Share of the way from start to target, in [0, 1]. */
  readonly progress: number;
  readonly trail: readonly XY[];
  readonly moving: boolean;
  /** From where the picture last showed its content to the target; null if that is not known. */
  readonly content: number | null;
  /** It was followed to its target, but the picture shows that its content was not. */
  readonly lost: boolean;
  /** Changed offline; the server does not know it yet. */
  readonly waiting: boolean;
}

/** Another person in the room, as the canvas shows them. */
export interface ShownPerson {
  readonly id: string;
  /** Their name and what they are doing. */
  readonly label: string;
  readonly colour: string;
  readonly cursor: XY | null;
  /** The drag they have selected. */
  readonly selected: string | null;
  readonly busy: boolean;
}

/** What the quick preview warps. */
export interface QuickPreviewPlan {
  readonly of: "original" | "result";
  /** Whether a run's previews are shown over it. */
  readonly behind: boolean;
  readonly drags: readonly DragEnds[];
}

/** Canvases narrower than this, in CSS pixels, get smaller margins. */
const NARROW = 560;
const MIN_PREVIEW_OPACITY = 0.65;
const NO_LAYERS: readonly MaskLayer[] = [];

export const document = computed(() => visibleDocument(state.room.value));
export const picture = computed(() => document.value?.picture ?? null);
export const mask = computed<readonly MaskLayer[]>(() => document.value?.mask ?? NO_LAYERS);
export const running = computed(() => isRunning(document.value));
export const starting = computed(() => isStarting(state.room.value));
export const stopping = computed(() => isStopping(state.room.value));
export const connected = computed(() => state.connection.value.state === "open");
export const editable = computed(() => state.room.value.role !== "viewer");
export const pendingCount = computed(() => state.room.value.pending.length);

/** Where the picture lies on the canvas. */
export const view = computed<View>(() => {
  const bounds = state.canvasSize.value;
  const size = picture.value;
  const camera = state.camera.value;
  if (size === null) return { scale: 1, x: 0, y: 0 };
  return camera === null ? fit(size, bounds, bounds.width < NARROW ? 14 : 28) : keepInSight(camera, size, bounds);
});

/** The tool that a press would use. */
export const activeTool = computed<Tool>(() => (state.spaceHeld.value || !editable.value ? "hand" : state.tool.value));
export const activeBrush = computed(() =>
  activeTool.value === "paint" || activeTool.value === "erase" ? activeTool.value : null,
);
/** The stroke that is being painted. */
export const stroke = computed(() => (state.gesture.value?.kind === "stroke" ? state.gesture.value : null));

export const drags = computed<readonly ShownDrag[]>(() => {
  const now = document.value;
  if (now === null) return [];
  const gesture = state.gesture.value;
  const waiting = new Set(waitingDrags(state.room.value, connected.value));
  return Object.entries(now.drags).map(([id, drag], index) => {
    const moving = gesture?.kind === "move" && gesture.id === id ? gesture : null;
    const start = moving?.end === "handle" ? moving.at : drag.handle;
    const handle = moving?.end === "handle" ? moving.at : currentPlace(drag);
    const target = moving?.end === "target" ? moving.at : drag.target;
    return {
      id,
      number: index + 1,
      start,
      handle,
      target,
      distance: distance(handle, target),
      progress: progressOf(start, handle, target),
      trail: moving?.end === "handle" ? [] : (state.room.value.trails[id] ?? []),
      moving: moving !== null,
      content: moving === null ? (state.room.value.content[id] ?? null) : null,
      lost: (drag.lost ?? false) && moving === null,
      waiting: waiting.has(id),
    };
  });
});

/** A place that holds still. */
export interface ShownPin {
  readonly id: string;
  /** From 1, in the order added. */
  readonly number: number;
  readonly at: XY;
}

export const pins = computed<readonly ShownPin[]>(() => {
  const gesture = state.gesture.value?.kind === "pin" ? state.gesture.value : null;
  const placed = Object.entries(document.value?.pins ?? {});
  const isNew = gesture !== null && placed.every(([id]) => id !== gesture.id);
  const shown: readonly (readonly [string, XY])[] = isNew ? [...placed, [gesture.id, gesture.at]] : placed;
  return shown.map(([id, at], index) => ({ id, number: index + 1, at: gesture?.id === id ? gesture.at : at }));
});

/**
 * Whether a place may change. The answers for places that the document holds are remembered: a mask may have hundreds
 * of layers, and during a run the drags change with every iteration, but not where they were placed.
 */
const isEditablePlace = computed<(place: XY) => boolean>(() => {
  const size = picture.value;
  const layers = mask.value;
  const rasters = state.rasters.value;
  if (size === null || layers.length === 0) return () => true;
  const isWhite = (sha256: string, place: XY) => {
    const raster = rasters.get(sha256);
    // A mask that has not been fetched yet excludes nothing.
    return raster === undefined || isOpaqueAt(raster, size, place);
  };
  const known = new WeakMap<XY, boolean>();
  return (place) => {
    const editable = known.get(place) ?? isEditable(layers, place, isWhite);
    known.set(place, editable);
    return editable;
  };
});

/** The drags whose handle was placed where nothing may change. */
export const outsideDrags = computed<readonly ShownDrag[]>(() => {
  const isEditableAt = isEditablePlace.value;
  return drags.value.filter(({ start }) => !isEditableAt(start));
});

const movedPlaceText = computed(() => movedSquare(picture.value, drags.value).join(" "));
/** The part of the picture in which things move; a new value only when it changes. */
export const movedPlace = computed(() => movedPlaceText.value.split(" ").map(Number) as unknown as Square);

/** The drags whose content is further from its target than a run accepts. */
export const unreachedDrags = computed<readonly ShownDrag[]>(() =>
  drags.value.filter((drag) => drag.distance > arrivalDistance()),
);

/** In pixels of the picture, and rather too large: only a run knows the exact size of the model's cells. */
function arrivalDistance(): number {
  const size = picture.value;
  const model = state.room.value.model;
  if (size === null) return 0;
  const cells = Number(document.value?.settings.arrival_distance ?? model?.settings.arrival_distance ?? 2);
  const cellsAcross = model?.kind === "builtin" ? 128 : 256;
  return (1.5 * cells * Math.max(size.width, size.height)) / cellsAcross;
}

/** The newest preview of the last run, if there is one. */
export const runPreview = computed(() => {
  const preview = state.preview.value;
  return preview !== null && preview.frame.run === document.value?.run?.id ? preview : null;
});

/** Which picture the canvas shows: a run's previews while there are any, then its result, else the original. */
export const showing = computed<"original" | "preview" | "result" | "moment">(() => {
  if (state.comparing.value) return "original";
  if (state.scrubbed.value !== null) return "moment";
  if (runPreview.value !== null) return "preview";
  return state.result.value !== null && document.value?.result ? "result" : "original";
});

/** The edited picture that is there to look at, whatever is held up for comparison; null if there is none. */
export const pictureNow = computed<ImageBitmap | null>(() => {
  if (state.scrubbed.value !== null) return state.scrubbed.value.bitmap;
  if (runPreview.value !== null) return runPreview.value.bitmap;
  return document.value?.result ? state.result.value : null;
});

/** The iteration of the scrubbed moment. */
export const scrubbedIteration = computed(
  () => state.room.value.moments.find(({ id }) => id === state.scrubbed.value?.id)?.iteration ?? 0,
);

/** The split view's divider, if there is anything to compare. */
export const splitShown = computed(() =>
  showing.value === "original" && !state.quickPreviewShown.value ? null : state.split.value,
);

export const otherPeople = computed<readonly ShownPerson[]>(() => {
  const { people, presences, person: me } = state.room.value;
  return Object.entries(presences).flatMap(([id, { busy, tool, cursor, selected }]) => {
    const person = people[id];
    if (id === me || person === undefined || !person.here) return [];
    const activity = busy ? texts.people.activity[tool] : "";
    const label = [person.name || texts.people.anonymous, activity].filter(Boolean).join(" · ");
    return [{ id, label, colour: person.colour, cursor, selected, busy }];
  });
});

export const branches = computed(() =>
  branchesOf(state.room.value.moments, document.value?.branches, state.room.value.moment),
);
/** The timeline's path through the current moment. */
export const timelinePath = computed(() =>
  pathThrough(state.room.value.moments, state.room.value.moment ?? document.value?.moment ?? null),
);

/** Null while there is nothing to preview, or while the picture has to be seen as it is. */
export const quickPreview = computed<QuickPreviewPlan | null>(() => {
  const shown = showing.value;
  if (shown === "moment" || document.value === null || state.original.value === null) return null;
  if (isPickingAPlace()) return null;
  // A run's first previews are blurry and show the way, not the aim.
  const behind = shown === "preview";
  const of = shown === "result" ? "result" : "original";
  const planned = drags.value.map((drag) => plannedDrag(drag, of));
  const gesture = state.gesture.value;
  const created =
    gesture?.kind === "create" && gesture.target !== null ? [{ handle: gesture.handle, target: gesture.target }] : [];
  const held = pins.value.map(({ at }) => ({ handle: at, target: at }));
  const moves = created.length > 0 || planned.some((drag) => drag?.moves);
  return moves ? { of, behind, drags: [...planned.flatMap((drag) => drag?.ends ?? []), ...created, ...held] } : null;
});

/** How much of a run's preview is seen over the quick preview, in [0, 1]: the nearer the points are, the more. */
export const previewOpacity = computed(() => {
  if (state.room.value.progress?.stage !== "dragging" || drags.value.length === 0) return 1;
  const progress = drags.value.reduce((sum, drag) => sum + drag.progress, 0) / drags.value.length;
  return MIN_PREVIEW_OPACITY + (1 - MIN_PREVIEW_OPACITY) * progress;
});

/** Whether the person is looking for a place on the picture, for a handle or for the brush. */
function isPickingAPlace(): boolean {
  if (
    state.comparing.value ||
    activeTool.value === "pin" ||
    state.tool.value === "paint" ||
    state.tool.value === "erase"
  )
    return true;
  if (state.pendingHandle.value !== null || state.crosshair.value !== null) return true;
  const gesture = state.gesture.value;
  if (gesture?.kind === "move") return gesture.end === "handle" || running.value;
  return gesture?.kind === "create" && (gesture.target === null || running.value);
}

/** How the quick preview of `of` treats a drag; null if it leaves it out. */
function plannedDrag(
  drag: ShownDrag,
  of: QuickPreviewPlan["of"],
): { readonly moves: boolean; readonly ends: DragEnds } | null {
  const original = of === "original";
  const rendered = document.value?.drags[drag.id]?.tracked != null && !state.unrenderedDrags.value.has(drag.id);
  // A run that has no picture yet is about to move every drag.
  const moves = !rendered || drag.moving || (original && running.value);
  if (!moves && original) return null;
  const handle = original ? drag.start : drag.handle;
  // What a run has moved holds its place.
  return { moves, ends: { handle, target: moves ? drag.target : handle } };
}
