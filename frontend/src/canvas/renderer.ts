/** Keeps the canvas element up to date with the store. */

import { effect } from "@preact/signals";
import type { Signal } from "@preact/signals";
import type { Size } from "../room/geometry.ts";
import * as store from "../room/store.ts";
import { chosenTheme } from "../ui/theme.ts";
import { firstBrushRadius } from "./brush.ts";
import { drawScene } from "./draw.ts";
import { MaskPainter } from "./mask-painter.ts";
import type { MaskPicture } from "./mask-painter.ts";
import { QuickPreviewPainter } from "./quick-preview.ts";
import type { QuickPreviewPicture } from "./quick-preview.ts";
import { sceneOf } from "./scene.ts";
import type { Scene } from "./scene.ts";

/** Draws the store's scene whenever it changes, at most once per display frame. */
export class CanvasRenderer {
  readonly #canvas: HTMLCanvasElement;
  readonly #context: CanvasRenderingContext2D;
  readonly #maskPainter = new MaskPainter();
  readonly #quickPreviewPainter = new QuickPreviewPainter();
  readonly #stopEffects: readonly (() => void)[];
  #mask: MaskPicture | null = null;
  #scene: Omit<Scene, "mask" | "quickPreview"> | null = null;
  #quickPreviewPlan: store.QuickPreviewPlan | null = null;
  #dataset: Readonly<Record<string, string>> = {};
  #frame = 0;

  /** `appearance` changes with the theme and the display's density. */
  constructor(canvas: HTMLCanvasElement, context: CanvasRenderingContext2D, appearance: Signal<number>) {
    this.#canvas = canvas;
    this.#context = context;
    this.#stopEffects = [
      effect(() => this.#followMask()),
      effect(() => {
        appearance.value;
        this.#followScene();
        if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#draw());
      }),
    ];
  }

  close(): void {
    for (const stop of this.#stopEffects) stop();
    cancelAnimationFrame(this.#frame);
  }

  #followMask(): void {
    const picture = store.picture.value;
    this.#mask = picture && this.#maskPainter.paint(picture, store.mask.value, store.rasters.value, store.stroke.value);
  }

  #followScene(): void {
    const picture = store.picture.value;
    const bounds = store.canvasSize.value;
    if (picture === null || bounds.width === 0) this.#scene = null;
    else {
      if (store.brushRadius.peek() === 0) store.brushRadius.value = firstBrushRadius(picture);
      const style = getComputedStyle(this.#canvas);
      const colour = (name: string) => style.getPropertyValue(name).trim();
      this.#scene = sceneOf(picture, bounds, window.devicePixelRatio || 1, colour);
    }
    this.#quickPreviewPlan = store.quickPreview.value;
    // The other effect paints the mask; reading its inputs here has it drawn as well.
    store.mask.value;
    store.rasters.value;
    this.#dataset = datasetOf();
  }

  #draw(): void {
    this.#frame = 0;
    const [canvas, context, scene] = [this.#canvas, this.#context, this.#scene];
    Object.assign(canvas.dataset, this.#dataset);
    resize(canvas, scene?.canvas ?? store.canvasSize.peek(), scene?.density ?? 1);
    const quickPreview = scene && this.#paintQuickPreview(scene.picture);
    store.quickPreviewShown.value = quickPreview !== null;
    if (scene === null) context.clearRect(0, 0, canvas.width, canvas.height);
    else drawScene(context, { ...scene, mask: this.#mask, quickPreview });
  }

  #paintQuickPreview(picture: Size): QuickPreviewPicture | null {
    const plan = this.#quickPreviewPlan;
    const bitmap = plan && (plan.of === "original" ? store.original.peek() : store.result.peek());
    const painter = this.#quickPreviewPainter;
    const painted = plan && bitmap && painter.paint(bitmap, picture, plan.drags, this.#mask);
    // In milliseconds, for measurements.
    if (painted !== null) this.#canvas.dataset.quickPreview = painter.milliseconds.toFixed(1);
    else delete this.#canvas.dataset.quickPreview;
    return painted;
  }
}

/** What tests and measurements read from the canvas. */
function datasetOf(): Readonly<Record<string, string>> {
  return {
    iteration: String(store.room.value.iteration),
    frame: String(store.previewCount.value),
    scale: String(store.view.value.scale),
    offsetX: String(store.view.value.x),
    offsetY: String(store.view.value.y),
    showing: store.showing.value,
    behind: String(store.quickPreview.value?.behind ?? false),
    split: String(store.splitShown.value ?? ""),
    pointing: String(store.otherPeople.value.filter(({ cursor }) => cursor !== null).length),
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
