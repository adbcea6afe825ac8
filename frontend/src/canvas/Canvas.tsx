import { useSignal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import * as store from "../room/store.ts";
import { CanvasBadge } from "./CanvasBadge.tsx";
import { CanvasHint } from "./CanvasHint.tsx";
import { PointerEvents } from "./pointer-events.ts";
import { CanvasRenderer, followCanvasSize } from "./renderer.ts";
import { SideBySide } from "./SideBySide.tsx";
import { Split } from "./Split.tsx";
import { texts } from "./texts.ts";
import { Zoom } from "./Zoom.tsx";

export function Canvas() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const pointers = useRef<HTMLCanvasElement>(null);
  const appearance = useSignal(0);
  const events = useMemo(() => new PointerEvents(), []);
  useEffect(() => render(canvas.current, pointers.current, appearance), []);
  const ready = store.original.value !== null;
  return (
    <div class="canvas-frame">
      <canvas
        ref={canvas}
        class={`canvas cursor-${cursor()}`}
        tabIndex={0}
        role="application"
        aria-label={texts.canvas}
        aria-describedby="canvas-help"
        data-testid="canvas"
        onPointerDown={events.onPointerDown}
        onPointerMove={events.onPointerMove}
        onPointerUp={events.onPointerUp}
        onPointerCancel={events.onPointerCancel}
        onPointerLeave={events.onPointerLeave}
        onWheel={events.onWheel}
        onBlur={(event) => delete event.currentTarget.dataset.focusShown}
        onContextMenu={(event) => event.preventDefault()}
      />
      <canvas ref={pointers} class="canvas-pointers" aria-hidden="true" />
      <p id="canvas-help" class="visually-hidden">
        {texts.canvasHelp}
      </p>
      {!ready && (
        <p class="opening" role="status">
          {texts.opening}
        </p>
      )}
      {ready && <Split />}
      {ready && <CanvasHint />}
      {ready && <CanvasBadge />}
      {ready && <Zoom />}
      {ready && <SideBySide />}
    </div>
  );
}

function render(
  canvas: HTMLCanvasElement | null,
  pointers: HTMLCanvasElement | null,
  appearance: Signal<number>,
): (() => void) | undefined {
  const frame = canvas?.parentElement;
  if (!canvas?.getContext("2d") || !frame || !pointers?.getContext("2d")) return undefined;
  const stopSize = followCanvasSize(frame, appearance);
  const renderer = new CanvasRenderer(canvas, pointers, appearance);
  return () => {
    stopSize();
    renderer.close();
  };
}

function cursor(): string {
  const gesture = store.gesture.value?.kind;
  if (gesture === "pan") return "grabbing";
  if (store.activeTool.value === "hand") return "grab";
  if (store.activeBrush.value !== null) return store.brushShape.value === "brush" ? "none" : "cross";
  if (gesture === "move") return "grabbing";
  return store.hovered.value !== null ? "grab" : "cross";
}
