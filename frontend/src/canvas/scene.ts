/** What the canvases show, as values made from the store: the picture below, and what points at it above. */

import type { Size, View } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import type { Selection, ShownDrag, ShownPerson, ShownPin } from "../room/store.ts";
import type { MaskPicture } from "./mask-painter.ts";
import type { QuickPreviewPicture } from "./quick-preview.ts";

/** Where everything lies. */
export interface Layout {
  /** In CSS pixels. */
  readonly canvas: Size;
  /** Device pixels per CSS pixel. */
  readonly density: number;
  readonly view: View;
}

/** What changes seldom and takes long to draw. */
export interface PictureScene extends Layout {
  readonly picture: Size;
  readonly base: ImageBitmap | null;
  /** Drawn over the base; inside the mask only, as the result will be. */
  readonly preview: CanvasImageSource | null;
  /** Of the preview, in [0, 1]; the quick preview shows through. */
  readonly previewOpacity: number;
  /** Drawn below the preview; transparent where nothing moves. */
  readonly quickPreview: QuickPreviewPicture | null;
  /** The original is shown on the left, up to `at`, in [0, 1] of the picture's width. */
  readonly split: { readonly at: number; readonly original: ImageBitmap } | null;
  /** What previews are cut out by: the area without the stroke in progress. */
  readonly mask: MaskPicture | null;
  /** What is drawn over them; another object than `mask` during a stroke. */
  readonly shownMask: MaskPicture | null;
  readonly maskStyle: MaskStyle;
  readonly accent: string;
  readonly background: string;
}

/** What follows the pointer. */
export interface PointerScene extends Layout {
  readonly drags: readonly ShownDrag[];
  readonly pins: readonly ShownPin[];
  readonly selectedPin: string | null;
  readonly pendingHandle: XY | null;
  /** Where the pending handle's target would be placed. */
  readonly pendingTarget: XY | null;
  readonly selected: Selection | null;
  readonly hovered: Selection | null;
  readonly crosshair: XY | null;
  /** The brush under the pointer, in pixels of the picture. */
  readonly brush: { readonly at: XY; readonly radius: number; readonly softness: number } | null;
  readonly people: readonly ShownPerson[];
  /** Where a finger hides the picture, in CSS pixels of the canvas. */
  readonly finger: XY | null;
  readonly accent: string;
}

/** Opacities, in [0, 1], of the tint inside the editable area, the veil outside it, and its outline. */
export interface MaskStyle {
  readonly inside: number;
  readonly outside: number;
  readonly outline: number;
}

/** While painting, the area stands out; while placing points, the picture in it does. */
const MASK_STYLES = {
  none: { inside: 0, outside: 0, outline: 0 },
  painting: { inside: 0.42, outside: 0, outline: 0.9 },
  points: { inside: 0, outside: 0.36, outline: 0.8 },
  running: { inside: 0, outside: 0, outline: 0.45 },
} as const satisfies Readonly<Record<string, MaskStyle>>;

/** Reads a CSS variable. */
type Colour = (name: string) => string;

/** The picture but for its mask and quick preview, which are painted when it is drawn. */
export function pictureSceneOf(
  picture: Size,
  layout: Layout,
  colour: Colour,
): Omit<PictureScene, "mask" | "shownMask" | "quickPreview"> {
  return {
    ...layout,
    picture,
    base: store.showing.value === "result" ? store.result.value : store.original.value,
    preview: previewOf(),
    previewOpacity: store.showing.value === "preview" ? store.previewOpacity.value : 1,
    split: splitOf(),
    maskStyle: MASK_STYLES[maskStyleName()],
    accent: colour("--accent"),
    background: colour("--board"),
  };
}

export function pointerSceneOf(layout: Layout, colour: Colour): PointerScene {
  const comparing = store.comparing.value;
  const gesture = store.gesture.value;
  const pointer = store.crosshair.value ?? store.pointer.value;
  const painting = store.activeBrush.value !== null;
  const handle = gesture?.kind === "create" ? gesture.handle : store.pendingHandle.value;
  const target = gesture?.kind === "create" ? gesture.target : pointer;
  return {
    ...layout,
    drags: comparing || isElsewhere() ? [] : store.drags.value,
    pins: comparing ? [] : store.pins.value,
    selectedPin: store.selectedPin.value,
    pendingHandle: comparing ? null : handle,
    pendingTarget: handle === null ? null : target,
    selected: store.selected.value,
    hovered: store.hovered.value,
    crosshair: painting && store.brushShape.value === "brush" ? null : store.crosshair.value,
    brush:
      painting && pointer !== null && store.brushShape.value === "brush"
        ? { at: pointer, radius: store.brushRadius.value, softness: store.brushSoftness.value }
        : null,
    people: comparing ? [] : store.otherPeople.value,
    finger: store.finger.value,
    accent: colour("--accent"),
  };
}

function previewOf(): ImageBitmap | null {
  const showing = store.showing.value;
  if (showing === "preview") return store.preview.value?.bitmap ?? null;
  return showing === "moment" ? (store.scrubbed.value?.bitmap ?? null) : null;
}

function splitOf(): PictureScene["split"] {
  const at = store.splitShown.value;
  const original = store.original.value;
  return at !== null && original !== null && !store.comparing.value ? { at, original } : null;
}

/** Whether a moment is shown that the room isn't at: its points were somewhere else. */
function isElsewhere(): boolean {
  const scrubbed = store.scrubbed.value;
  return scrubbed !== null && scrubbed.id !== store.document.value?.moment;
}

function maskStyleName(): keyof typeof MASK_STYLES {
  const showing = store.showing.value;
  if (store.comparing.value || !store.maskShown.value) return "none";
  if (store.tool.value === "paint" || store.tool.value === "erase") return "painting";
  if (store.running.value) return "running";
  return showing === "result" || showing === "moment" || store.splitShown.value !== null ? "none" : "points";
}
