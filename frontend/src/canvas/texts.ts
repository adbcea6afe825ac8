/** Texts on and around the canvas. */

import type { BrushShape } from "../room/store.ts";

export const texts = {
  canvas: "Picture",
  canvasHelp:
    "Press P for a crosshair, which the arrow keys move. Press Enter to place a handle, and Enter again to place its target. Press the question mark for all shortcuts.",
  opening: "Opening the picture…",
  crosshairAt: (x: number, y: number) => `Crosshair at ${Math.round(x)}, ${Math.round(y)}`,

  hints: {
    handle: "Click on something you want to move",
    handleTouch: "Tap something you want to move",
    target: "Now click where it should go",
    targetTouch: "Now tap where it should go",
    cancel: "Cancel",
    pin: "Click on something to hold it in place",
    pinTouch: "Tap something to hold it in place",
    crosshairPin: "Move the crosshair with the arrow keys, then press Enter to place a pin",
    paint: "Paint the area that may change. The rest stays as it is.",
    erase: "Erase from the area that may change",
    rectangle: "Drag a rectangle over the area",
    lasso: "Draw around the area",
    select: "Click on something to select what has a similar colour",
    selectTouch: "Tap something to select what has a similar colour",
    crosshairHandle: "Move the crosshair with the arrow keys, then press Enter to place the handle",
    crosshairTarget: "Move the crosshair with the arrow keys, then press Enter to place the target",
    crosshairBrush: "Move the brush with the arrow keys, then press Enter to paint",
  },

  showing: {
    original: "Original",
    pressedDrag: (name: string) => `${name} pressed Drag`,
    preview: "Live preview",
    result: "Result",
    moment: (iteration: number) => `Iteration ${iteration}`,
    quickPreview: "Quick preview",
    keep: "Keep quick preview",
    keepShort: "Keep",
    keepHelp: "Use it as the result, at full size, without the model",
    quickPreviewIdle: "Press Drag to render.",
    quickPreviewRunning: "The live preview follows.",
    quickPreviewViewer: "Nothing has been rendered yet.",
  },

  tools: {
    title: "Tools",
    points: "Points",
    pin: "Pin",
    paint: "Paint",
    erase: "Erase",
    hand: "Hand",
    shape: "Shape",
    shapes: {
      brush: ["Brush", ""],
      rectangle: ["Rectangle", "R"],
      lasso: ["Lasso", "L"],
      select: ["Select similar colours", "W"],
    } satisfies Record<BrushShape, readonly [name: string, shortcut: string]>,
    tolerance: "Colour tolerance",
    toleranceShort: "Tolerance",
    percent: (share: number) => `${Math.round(share * 100)}%`,
    brushSize: "Brush size",
    softness: "Brush softness",
    softnessShort: "Softness",
    softnessValue: (softness: number) => (softness === 0 ? "hard" : `${Math.round(softness * 100)}% soft`),
  },

  zoom: {
    title: "Zoom",
    in: "Zoom in",
    out: "Zoom out",
    fit: "Zoom to fit",
    percent: (percent: number) => `${percent}%`,
    actual: (percent: number) => `${percent}%. Zoom to 100%`,
    actualHelp: "Zoom to 100%",
  },

  sideBySide: {
    title: "Original and result side by side",
    close: "Close",
    closeHelp: "Close (S)",
  },

  split: {
    title: "Divider between original and result",
    value: (percent: number) => `${percent}% original`,
  },
} as const;
