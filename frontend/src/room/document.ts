/** The room's document and what each operation does to it; pure. */

import type { AppliedOperation, Content, Document, Drag, MaskLayer, Picture, Restore, Run, XY } from "./protocol.ts";

/** The document after an operation. An operation that no longer applies changes nothing. */
export function applyOperation(document: Document, op: AppliedOperation): Document {
  switch (op.type) {
    case "add_drag":
      return withDrag(document, op.id, { handle: op.handle, target: op.target, tracked: null });
    case "move_drag": {
      const before = document.drags[op.id];
      return before === undefined ? document : withDrag(document, op.id, movedDrag(before, op));
    }
    case "remove_drag":
      return { ...document, drags: without(document.drags, op.id) };
    case "add_stroke":
      return withLayer(document, op.stroke);
    case "remove_stroke":
      return { ...document, mask: document.mask.filter((layer) => layer.id !== op.id) };
    case "invert_mask":
      return withLayer(document, { type: "invert", id: op.id });
    case "grow_mask":
      return withLayer(document, { type: "grow", id: op.id, pixels: op.pixels });
    case "raster":
      return withLayer(document, op);
    case "clear_mask":
      return { ...document, mask: [] };
    case "set_prompt":
      return { ...document, prompt: op.prompt };
    case "set_settings":
      return { ...document, settings: withValues(document.settings, op.settings) };
    case "set_pin":
      return { ...document, pins: withValues(document.pins, { [op.id]: op.at }) };
    case "set_title":
      return { ...document, title: op.title };
    case "set_model":
      return { ...document, model: op.model };
    case "mark_branch":
      return { ...document, branches: withValues(document.branches ?? {}, { [op.moment]: op.mark ?? null }) };
    case "restore":
      return restored(document, op);
  }
}

/** Back to the uploaded picture; points stay, where they were placed. */
export function resetDocument(document: Document): Document {
  const drags = mapValues(document.drags, (drag) => ({ ...drag, tracked: null, lost: false }));
  return { ...document, run: null, result: null, moment: null, drags };
}

/** Whether the picture is at another step of the timeline than its result shows. */
export function isElsewhere({ moment, result }: Document): boolean {
  // Rooms of older versions do not say which step their result shows.
  return moment !== null && (result === null || (typeof result.moment === "number" && result.moment !== moment));
}

/** Another picture is edited from now on; mask and pins stay if they fit it. */
export function rebased(document: Document, picture: Picture): Document {
  const fresh = { ...document, picture, run: null, result: null, moment: null, branches: {}, drags: {} };
  const { width, height } = document.picture;
  return picture.width === width && picture.height === height ? fresh : { ...fresh, mask: [], pins: {} };
}

/** Drags that are not in `places` keep where they were last tracked. */
export function withTracked(drags: Document["drags"], places: Readonly<Record<string, XY>>): Document["drags"] {
  return mapValues(drags, (drag, id) => ({ ...drag, tracked: places[id] ?? drag.tracked }));
}

/** Only the drags in `names` are lost: their content did not follow. */
export function withLost(drags: Document["drags"], names: readonly string[]): Document["drags"] {
  return mapValues(drags, (drag, id) => ({ ...drag, lost: names.includes(id) }));
}

/** Only the drags in `places` have been tracked. */
export function withTrackedOnly(drags: Document["drags"], places: Readonly<Record<string, XY>>): Document["drags"] {
  return mapValues(drags, (drag, id) => ({ ...drag, tracked: places[id] ?? null, lost: false }));
}

/** Where the content of a drag is now. */
export function currentPlace(drag: Drag): XY {
  return drag.tracked ?? drag.handle;
}

export function isRunning(document: Document | null): boolean {
  const run = document?.run;
  return run !== null && run !== undefined && run.outcome === null && !run.interrupted;
}

/** The last run, if it has ended or was interrupted. */
export function endedRun(document: Document | null): Run | null {
  const run = document?.run;
  return run && (run.outcome !== null || run.interrupted) ? run : null;
}

/** The drags whose handles an operation moves or removes. */
export function movedHandles(op: AppliedOperation): readonly string[] {
  if (op.type === "remove_drag" || (op.type === "move_drag" && op.handle)) return [op.id];
  if (op.type !== "restore") return [];
  return Object.entries(op.drags ?? {}).flatMap(([id, back]) => (back === null || back.handle ? [id] : []));
}

/** The drags whose handles or targets an operation moves, or that it removes. */
export function movedPoints(op: AppliedOperation): readonly string[] {
  if (op.type === "remove_drag" || op.type === "move_drag") return [op.id];
  return op.type === "restore" ? Object.keys(op.drags ?? {}) : [];
}

export function without<T>(record: Readonly<Record<string, T>>, key: string): Readonly<Record<string, T>> {
  const { [key]: _, ...rest } = record;
  return rest;
}

/** The record after changes; null removes a value. */
export function withValues<T>(
  before: Readonly<Record<string, T>>,
  changes: Readonly<Record<string, T | null>>,
): Readonly<Record<string, T>> {
  const values = { ...before };
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) delete values[name];
    else values[name] = value;
  }
  return values;
}

interface Move {
  readonly handle?: XY | null;
  readonly target?: XY | null;
}

function withDrag(document: Document, id: string, drag: Drag): Document {
  return { ...document, drags: { ...document.drags, [id]: drag } };
}

function movedDrag(before: Drag, { handle, target }: Move): Drag {
  return {
    handle: handle ?? before.handle,
    target: target ?? before.target,
    tracked: handle ? null : before.tracked,
  };
}

function withLayer(document: Document, layer: MaskLayer): Document {
  if (layer.type === "raster") return { ...document, mask: [layer] };
  if (document.mask.some((other) => other.id === layer.id)) return document;
  return { ...document, mask: [...document.mask, layer] };
}

function restored(document: Document, op: Restore): Document {
  const drags = Object.entries(op.drags ?? {}).reduce(
    (before, [id, back]) => withRestoredDrag(before, id, back),
    document.drags,
  );
  return {
    ...document,
    drags,
    settings: withValues(document.settings, op.settings ?? {}),
    prompt: op.prompt ?? document.prompt,
    mask: op.mask ?? document.mask,
    branches: withValues(document.branches ?? {}, op.branches ?? {}),
    ...(op.content ? withContent(drags, op.content) : {}),
    pins: withValues(document.pins, op.pins ?? {}),
    title: op.title ?? document.title,
    model: op.model ?? document.model,
  };
}

function withContent(drags: Document["drags"], content: Content): Partial<Document> {
  const { picture, run, result, moment, handles, tracked } = content;
  const placed = mapValues(drags, (drag, id) => ({
    ...drag,
    handle: handles[id] ?? drag.handle,
    tracked: tracked[id] ?? null,
    lost: false,
  }));
  return { picture, run, result, moment, drags: placed };
}

function withRestoredDrag(drags: Document["drags"], id: string, back: Move | null): Document["drags"] {
  if (back === null) return without(drags, id);
  const before = drags[id];
  if (before !== undefined) return { ...drags, [id]: movedDrag(before, back) };
  if (!back.handle || !back.target) return drags;
  return { ...drags, [id]: { handle: back.handle, target: back.target, tracked: null } };
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, change: (value: T, key: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value, key)]));
}
