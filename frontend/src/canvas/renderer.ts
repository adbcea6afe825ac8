/** Keeps the canvas elements up to date with the store. */

import { effect } from "@preact/signals";
import type { Signal } from "@preact/signals";
import type { Size } from "../room/geometry.ts";
import * as store from "../room/store.ts";
import { chosenTheme } from "../ui/theme.ts";
import { firstBrushRadius } from "./brush.ts";
import { drawPicture, drawPointers } from "./draw.ts";
import { MaskPainter } from "./mask-painter.ts";
import type { MaskPicture, PaintedMask } from "./mask-painter.ts";
import { QuickPreviewPainter } from "./quick-preview.ts";
import type { QuickPreviewPicture } from "./quick-preview.ts";
import { pictureSceneOf, pointerSceneOf } from "./scene.ts";
import type { Layout, PictureScene, PointerScene } from "./scene.ts";

/** Draws the store's scenes whenever they change, each at most once per display frame. */
export class CanvasRenderer {
  readonly #picture: Layer;
  readonly #pointers: Layer;
  readonly #maskPainter = new MaskPainter();
  readonly #quickPreviewPainter = new QuickPreviewPainter();
  readonly #stopEffects: readonly (() => void)[];
  #scene: Omit<PictureScene, "mask" | "shownMask" | "quickPreview"> | null = null;
  #pointerScene: PointerScene | null = null;
  #quickPreviewPlan: store.QuickPreviewPlan | null = null;
  #dataset: Readonly<Record<string, string>> = {};
  readonly #appearance: Signal<number>;
  /** CSS variables as they were last read: reading them makes the browser compute styles. */
  readonly #colours = new Map<string, string>();
  #coloursOf = 0;

  /** `pointers` lies over `picture`. `appearance` changes with the theme and the display's density. */
  constructor(picture: HTMLCanvasElement, pointers: HTMLCanvasElement, appearance: Signal<number>) {
    this.#appearance = appearance;
    this.#picture = new Layer(picture, () => this.#drawPicture());
    this.#pointers = new Layer(pointers, () => this.#drawPointers());
    this.#stopEffects = [
      effect(() => {
        appearance.value;
        this.#followPicture();
        this.#picture.requestDraw();
      }),
      effect(() => {
        appearance.value;
        this.#pointerScene = this.#layoutOf((layout) => pointerSceneOf(layout, this.#colour));
        this.#pointers.requestDraw();
      }),
      effect(() => {
        Object.assign(picture.dataset, volatileDatasetOf());
      }),
    ];
  }

  close(): void {
    for (const stop of this.#stopEffects) stop();
    this.#picture.close();
    this.#pointers.close();
  }

  #followPicture(): void {
    this.#scene = this.#layoutOf((layout, picture) => {
      if (store.brushRadius.peek() === 0) store.brushRadius.value = firstBrushRadius(picture);
      return pictureSceneOf(picture, layout, this.#colour);
    });
    this.#quickPreviewPlan = store.quickPreview.value;
    // They are painted when the picture is drawn, once for all the moves of a frame.
    store.mask.value;
    store.rasters.value;
    store.stroke.value;
    this.#dataset = datasetOf();
  }

  /** Null before there is a picture and a layout. */
  #layoutOf<S>(sceneOf: (layout: Layout, picture: Size) => S): S | null {
    const picture = store.picture.value;
    const canvas = store.canvasSize.value;
    if (picture === null || canvas.width === 0) return null;
    return sceneOf({ canvas, density: window.devicePixelRatio || 1, view: store.view.value }, picture);
  }

  readonly #colour = (name: string): string => {
    if (this.#coloursOf !== this.#appearance.peek()) this.#colours.clear();
    this.#coloursOf = this.#appearance.peek();
    const known = this.#colours.get(name);
    if (known !== undefined) return known;
    const colour = getComputedStyle(this.#picture.canvas).getPropertyValue(name).trim();
    this.#colours.set(name, colour);
    return colour;
  };

  #drawPicture(): void {
    const scene = this.#scene;
    Object.assign(this.#picture.canvas.dataset, this.#dataset);
    const mask = scene && this.#paintMask(scene.picture);
    const quickPreview = scene && this.#paintQuickPreview(scene.picture, mask?.settled ?? null);
    store.quickPreviewShown.value = quickPreview !== null;
    const context = this.#picture.prepare(scene);
    if (scene !== null && mask !== null && context !== null) {
      drawPicture(context, { ...scene, mask: mask.settled, shownMask: mask.shown, quickPreview });
    }
    // The loupe magnifies what was drawn.
    if (this.#pointerScene?.finger) this.#pointers.requestDraw();
  }

  #drawPointers(): void {
    const scene = this.#pointerScene;
    const context = this.#pointers.prepare(scene);
    if (scene !== null && context !== null) drawPointers(context, scene, this.#picture.canvas);
  }

  #paintMask(picture: Size): PaintedMask {
    return this.#maskPainter.paint(picture, store.mask.peek(), store.rasters.peek(), store.stroke.peek());
  }

  #paintQuickPreview(picture: Size, mask: MaskPicture | null): QuickPreviewPicture | null {
    const plan = this.#quickPreviewPlan;
    const bitmap = plan && (plan.of === "original" ? store.original.peek() : store.result.peek());
    const painter = this.#quickPreviewPainter;
    const painted = plan && bitmap && painter.paint(bitmap, picture, plan.drags, mask);
    // In milliseconds, for measurements.
    if (painted !== null) this.#picture.canvas.dataset.quickPreview = painter.milliseconds.toFixed(1);
    else delete this.#picture.canvas.dataset.quickPreview;
    return painted;
  }
}

/** One canvas, drawn at most once per display frame. */
class Layer {
  readonly canvas: HTMLCanvasElement;
  readonly #draw: () => void;
  #frame = 0;

  constructor(canvas: HTMLCanvasElement, draw: () => void) {
    this.canvas = canvas;
    this.#draw = draw;
  }

  requestDraw(): void {
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  close(): void {
    cancelAnimationFrame(this.#frame);
  }

  /** Sizes the canvas for what is about to be drawn; clears it if there is nothing. */
  prepare(layout: Layout | null): CanvasRenderingContext2D | null {
    const context = this.canvas.getContext("2d");
    resize(this.canvas, layout?.canvas ?? store.canvasSize.peek(), layout?.density ?? 1);
    if (layout === null) context?.clearRect(0, 0, this.canvas.width, this.canvas.height);
    return context;
  }
}

/** What tests and measurements read from the canvas, and changes without its being drawn again. */
function volatileDatasetOf(): Readonly<Record<string, string>> {
  return {
    iteration: String(store.room.value.iteration),
    pointing: String(store.otherPeople.value.filter(({ cursor }) => cursor !== null).length),
  };
}

/** The same of what is drawn. */
function datasetOf(): Readonly<Record<string, string>> {
  return {
    frame: String(store.previewCount.value),
    scale: String(store.view.value.scale),
    offsetX: String(store.view.value.x),
    offsetY: String(store.view.value.y),
    showing: store.showing.value,
    behind: String(store.quickPreview.value?.behind ?? false),
    split: String(store.splitShown.value ?? ""),
  };
}

function resize(canvas: HTMLCanvasElement, { width, height }: Size, density: number): void {
  const pixels = { width: Math.round(width * density), height: Math.round(height * density) };
  if (canvas.width !== pixels.width) canvas.width = pixels.width;
  if (canvas.height !== pixels.height) canvas.height = pixels.height;
}

/** Measures the canvas, and counts `appearance` up when theme or density change. Returns a function that stops. */
export function followCanvasSize(frame: HTMLElement, appearance: Signal<number>): () => void {
  const measure = () => {
    store.canvasSize.value = { width: frame.clientWidth, height: frame.clientHeight };
  };
  const redraw = () => {
    appearance.value = appearance.peek() + 1;
  };
  const observer = new ResizeObserver(measure);
  observer.observe(frame);
  measure();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", redraw);
  const stopTheme = effect(() => {
    chosenTheme.value;
    redraw();
  });
  const stopDensity = followDensity(redraw);
  return () => {
    observer.disconnect();
    stopTheme();
    stopDensity();
    dark.removeEventListener("change", redraw);
  };
}

/** The density changes when the window moves to another screen or the browser zooms. */
function followDensity(changed: () => void): () => void {
  let query: MediaQueryList;
  const follow = () => {
    // A query matches one density only, so each change needs a new one.
    query = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    query.addEventListener("change", onChange, { once: true });
  };
  const onChange = () => {
    follow();
    changed();
  };
  follow();
  return () => query.removeEventListener("change", onChange);
}
