/** Draws a scene. Nothing here reads the store: the same scene gives the same picture. */

import { toCanvas } from "../room/geometry.ts";
import type { Size } from "../room/geometry.ts";
import { drawBrush, drawCrosshair, drawCursor } from "./draw-cursors.ts";
import { drawPoints, drawSelectionOf } from "./draw-points.ts";
import type { MaskPicture } from "./mask-painter.ts";
import type { MaskStyle, Scene } from "./scene.ts";

/** From this scale on, pixels are shown as squares. */
const PIXELATED_SCALE = 9;

/** Of the mask, in pixels of its canvas. */
const STRIPE_WIDTH = 6;
const STRIPE = "#fff";

type Area = readonly [x: number, y: number, width: number, height: number];

export function drawScene(context: CanvasRenderingContext2D, scene: Scene): void {
  const { canvas, density, view, picture } = scene;
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = view.scale < PIXELATED_SCALE;
  context.imageSmoothingQuality = "high";
  const area: Area = [view.x, view.y, picture.width * view.scale, picture.height * view.scale];
  if (scene.base) context.drawImage(scene.base, ...area);
  drawPreview(context, scene, area);
  if (scene.split !== null) drawSplit(context, scene.split, area);
  if (scene.mask !== null) drawMask(context, scene, scene.mask, area);
  drawPoints(context, scene);
  for (const person of scene.people) {
    drawSelectionOf(context, scene, person);
    if (person.cursor !== null) drawCursor(context, view, person, person.cursor);
  }
  if (scene.brush !== null) drawBrush(context, view, scene.brush);
  if (scene.crosshair !== null) drawCrosshair(context, toCanvas(view, scene.crosshair), scene.accent);
}

function drawPreview(context: CanvasRenderingContext2D, scene: Scene, area: Area): void {
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
  { at, original }: NonNullable<Scene["split"]>,
  [x, y, width, height]: Area,
): void {
  context.save();
  context.beginPath();
  context.rect(x, y, width * at, height);
  context.clip();
  context.drawImage(original, x, y, width, height);
  context.restore();
}

function drawMask(context: CanvasRenderingContext2D, scene: Scene, mask: MaskPicture, area: Area): void {
  const overlay = (part: keyof MaskStyle, operation: "source-in" | "source-out", colours: readonly string[]) => {
    const opacity = scene.maskStyle[part];
    if (opacity === 0) return;
    const shape = part === "outline" ? mask.outline : mask.region;
    const tinted = compose(part, [mask, ...colours], shape, (inner, width, height) => {
      inner.drawImage(shape, 0, 0);
      inner.globalCompositeOperation = operation;
      inner.fillStyle = stripes(inner, colours);
      inner.fillRect(0, 0, width, height);
    });
    context.globalAlpha = opacity;
    context.drawImage(tinted, ...area);
  };
  context.save();
  context.beginPath();
  context.rect(...area);
  context.clip();
  overlay("outside", "source-out", [scene.background]);
  // One of two colours that far apart shows on any picture.
  overlay("inside", "source-in", [scene.accent, STRIPE]);
  overlay("outline", "source-in", [scene.accent, STRIPE]);
  context.restore();
}

/** Diagonal stripes of the colours. */
function stripes(context: CanvasRenderingContext2D, colours: readonly string[]): CanvasPattern | string {
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
): HTMLCanvasElement {
  const before = compositions.get(name);
  if (before?.inputs.every((input, index) => input === inputs[index])) return before.canvas;
  const canvas = before?.canvas ?? window.document.createElement("canvas");
  canvas.width = like.width;
  canvas.height = like.height;
  const context = canvas.getContext("2d");
  if (context !== null) paint(context, like.width, like.height);
  compositions.set(name, { inputs, canvas });
  return canvas;
}
