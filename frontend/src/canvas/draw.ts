/** Draws scenes. Nothing here reads the store: the same scene gives the same picture. */

import { toCanvas } from "../room/geometry.ts";
import type { Size } from "../room/geometry.ts";
import { drawBrush, drawCrosshair, drawCursor } from "./draw-cursors.ts";
import { drawLoupe } from "./draw-loupe.ts";
import { drawPoints, drawSelectionOf } from "./draw-points.ts";
import type { MaskPicture } from "./mask-painter.ts";
import type { Layout, PictureScene, PointerScene } from "./scene.ts";

/** From this scale on, pixels are shown as squares. */
const PIXELATED_SCALE = 9;

/** Pixels of a flattened picture, relative to those of the canvas: more take longer than drawing its layers. */
const MAX_FLATTENED = 2;

/** Of the mask, in pixels of its canvas. */
const STRIPE_WIDTH = 6;
const STRIPE = "#fff";

type Area = readonly [x: number, y: number, width: number, height: number];

export function drawPicture(context: CanvasRenderingContext2D, scene: PictureScene): void {
  const { view, picture } = scene;
  clear(context, scene);
  context.imageSmoothingEnabled = view.scale < PIXELATED_SCALE;
  const area: Area = [view.x, view.y, picture.width * view.scale, picture.height * view.scale];
  const scale = view.scale * scene.density;
  const isPainting = scene.shownMask !== scene.mask;
  if ((scene.preview !== null || isPainting) && canFlatten(scene, scale)) {
    // Without a GPU, smoother scaling takes longer than there is between two inputs.
    context.imageSmoothingQuality = "low";
    // A mask that is being painted changes with every input, and what is below it does not.
    context.drawImage(flattened(isPainting ? { ...scene, shownMask: null } : scene, scale), ...area);
    if (isPainting && scene.shownMask !== null) drawMask(context, scene, scene.shownMask, area);
    return;
  }
  drawLayers(context, scene, area, scale);
}

/** All that `drawPicture` shows, within `area` of the canvas; `scale`: device pixels per pixel of the picture. */
function drawLayers(context: CanvasRenderingContext2D, scene: PictureScene, area: Area, scale: number): void {
  context.imageSmoothingQuality = "high";
  if (scene.base) context.drawImage(reduced("base", scene.base, scale), ...area);
  // Previews and masks are softer than that by themselves, and the best scaling takes long without a GPU.
  context.imageSmoothingQuality = "low";
  drawPreview(context, scene, area);
  if (scene.split !== null) {
    const { at, original } = scene.split;
    drawSplit(context, { at, original: reduced("split", original, scale) }, area);
  }
  if (scene.shownMask !== null) drawMask(context, scene, scene.shownMask, area);
}

/** Whether the whole picture, at the resolution that it is shown at, has about as few pixels as the canvas. */
function canFlatten({ canvas, density, view, picture, split }: PictureScene, scale: number): boolean {
  const { width, height } = shownSize(picture, scale);
  const few = width * height <= MAX_FLATTENED * canvas.width * canvas.height * density ** 2;
  return split === null && few && view.scale < PIXELATED_SCALE;
}

/** The picture with its previews and its mask as one, so that panning and zooming draw one layer instead of five. */
function flattened(scene: PictureScene, scale: number): HTMLCanvasElement {
  const { base, preview, previewOpacity, quickPreview, mask, shownMask, maskStyle, accent, background } = scene;
  const size = shownSize(scene.picture, scale);
  const inputs = [base, preview, previewOpacity, quickPreview, mask, shownMask, maskStyle, accent, background];
  return compose("flattened", [...inputs, size.width, size.height], size, (context, width, height) =>
    drawLayers(context, scene, [0, 0, width, height], scale),
  );
}

/** Draws points, cursors and brush, on a canvas over `picture`: that is fast however large the picture is. */
export function drawPointers(context: CanvasRenderingContext2D, scene: PointerScene, picture: HTMLCanvasElement): void {
  const { view } = scene;
  clear(context, scene);
  drawPoints(context, scene);
  for (const person of scene.people) {
    drawSelectionOf(context, scene, person);
    if (person.cursor !== null) drawCursor(context, view, person, person.cursor);
  }
  if (scene.brush !== null) drawBrush(context, view, scene.brush);
  if (scene.crosshair !== null) drawCrosshair(context, toCanvas(view, scene.crosshair), scene.accent);
  if (scene.finger !== null) drawLoupe(context, scene, scene.finger, picture);
}

function clear(context: CanvasRenderingContext2D, { canvas, density }: Layout): void {
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
}

function drawPreview(context: CanvasRenderingContext2D, scene: PictureScene, area: Area): void {
  const { preview, previewOpacity, quickPreview, mask } = scene;
  const draw = (picture: CanvasImageSource, source: unknown, name: string) =>
    context.drawImage(mask === null ? picture : cutOut(name, picture, mask, source), ...area);
  if (quickPreview !== null) draw(quickPreview.canvas, quickPreview, "quick-preview");
  if (preview === null) return;
  context.globalAlpha = quickPreview === null ? 1 : previewOpacity;
  draw(preview, preview, "preview");
  context.globalAlpha = 1;
}

function drawSplit(
  context: CanvasRenderingContext2D,
  { at, original }: { readonly at: number; readonly original: CanvasImageSource },
  [x, y, width, height]: Area,
): void {
  context.save();
  context.beginPath();
  context.rect(x, y, width * at, height);
  context.clip();
  context.imageSmoothingQuality = "high";
  context.drawImage(original, x, y, width, height);
  context.restore();
}

function drawMask(context: CanvasRenderingContext2D, scene: PictureScene, mask: MaskPicture, area: Area): void {
  if (Object.values(scene.maskStyle).every((opacity) => opacity === 0)) return;
  context.save();
  context.beginPath();
  context.rect(...area);
  context.clip();
  context.drawImage(maskOverlay(scene, mask), ...area);
  context.restore();
}

/** Veil, tint and outline as one; where a stroke grows, only that part is painted again. */
function maskOverlay({ maskStyle, accent, background }: PictureScene, mask: MaskPicture): HTMLCanvasElement {
  const { region, outline, changed } = mask;
  const inputs = [mask, maskStyle, accent, background];
  return compose("mask", inputs, region, (context, width, height) => paintMask(context, [0, 0, width, height]), {
    inputs: [changed?.since, maskStyle, accent, background],
    paint: (context) => changed && paintMask(context, changed.area),
  });

  function paintMask(context: CanvasRenderingContext2D, area: Area): void {
    context.clearRect(...area);
    tint(context, area, region, { operation: "source-out", colours: [background], opacity: maskStyle.outside });
    // One of two colours that far apart shows on any picture.
    const colours = [accent, STRIPE];
    tint(context, area, region, { operation: "source-in", colours, opacity: maskStyle.inside });
    tint(context, area, outline, { operation: "source-in", colours, opacity: maskStyle.outline });
  }
}

interface Tint {
  readonly operation: "source-in" | "source-out";
  readonly colours: readonly string[];
  readonly opacity: number;
}

/** Draws stripes of the colours inside the shape, or outside of it. */
function tint(
  context: CanvasRenderingContext2D,
  [x, y, width, height]: Area,
  shape: HTMLCanvasElement,
  { operation, colours, opacity }: Tint,
): void {
  if (opacity === 0) return;
  const tinted = new OffscreenCanvas(width, height);
  const inner = tinted.getContext("2d");
  if (inner === null) return;
  // The stripes begin where those of the whole do.
  inner.translate(-x, -y);
  inner.drawImage(shape, 0, 0);
  inner.globalCompositeOperation = operation;
  inner.fillStyle = stripes(inner, colours);
  inner.fillRect(x, y, width, height);
  context.globalAlpha = opacity;
  context.drawImage(tinted, x, y);
  context.globalAlpha = 1;
}

/** Diagonal stripes of the colours. */
function stripes(context: OffscreenCanvasRenderingContext2D, colours: readonly string[]): CanvasPattern | string {
  const side = STRIPE_WIDTH * colours.length;
  const tile = new OffscreenCanvas(side, side);
  const inner = tile.getContext("2d");
  if (inner === null || colours.length === 1) return colours[0] ?? "";
  for (let x = 0; x < side; x++) {
    for (let y = 0; y < side; y++) {
      inner.fillStyle = colours[Math.floor(((x + y) % side) / STRIPE_WIDTH)] ?? "";
      inner.fillRect(x, y, 1, 1);
    }
  }
  return context.createPattern(tile, "repeat") ?? "";
}

/**
 * The picture, or a copy that is smaller by a power of two and still has a pixel for every device pixel: panning and
 * zooming redraw it all the time. `scale`: device pixels per pixel of the picture.
 */
function reduced(name: string, picture: ImageBitmap, scale: number): CanvasImageSource {
  const size = shownSize(picture, scale);
  if (size.width >= picture.width) return picture;
  return compose(`reduced ${name}`, [picture, size.width], size, (context, width, height) => {
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, width, height);
  });
}

/** The size times the smallest power of two with which there is a pixel for every device pixel. */
function shownSize({ width, height }: Size, scale: number): Size {
  const factor = 2 ** Math.ceil(Math.log2(scale));
  return { width: Math.max(1, Math.floor(width * factor)), height: Math.max(1, Math.floor(height * factor)) };
}

/** The part of a picture inside the mask; `source` identifies its content. */
function cutOut(name: string, picture: CanvasImageSource, mask: MaskPicture, source: unknown): HTMLCanvasElement {
  return compose(name, [source, mask], mask.region, (context, width, height) => {
    context.drawImage(picture, 0, 0, width, height);
    context.globalCompositeOperation = "destination-in";
    context.drawImage(mask.region, 0, 0);
  });
}

/** The compositions of the last scene, most of which the next one needs too. */
const compositions = new Map<string, { readonly inputs: readonly unknown[]; readonly canvas: HTMLCanvasElement }>();

/** Paints on a canvas of its own, the size of `like`, unless it was last painted from the same inputs. */
function compose(
  name: string,
  inputs: readonly unknown[],
  like: Size,
  paint: (context: CanvasRenderingContext2D, width: number, height: number) => void,
  change?: Change,
): HTMLCanvasElement {
  const before = compositions.get(name);
  if (before && areSame(before.inputs, inputs)) return before.canvas;
  const canvas = before?.canvas ?? window.document.createElement("canvas");
  const context = canvas.getContext("2d");
  if (before && change && areSame(before.inputs, change.inputs)) {
    if (context !== null) change.paint(context);
  } else {
    canvas.width = like.width;
    canvas.height = like.height;
    if (context !== null) paint(context, like.width, like.height);
  }
  compositions.set(name, { inputs, canvas });
  return canvas;
}

/** What has to be painted if the last inputs were these. */
interface Change {
  readonly inputs: readonly unknown[];
  readonly paint: (context: CanvasRenderingContext2D) => void;
}

function areSame(some: readonly unknown[], others: readonly unknown[]): boolean {
  return some.every((one, index) => one === others[index]);
}
