import { effect, useSignal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { draw } from "../draw.ts";
import type { Scene } from "../draw.ts";
import { hit, isInside, toPicture, wheelAsks } from "../geometry.ts";
import type { Size } from "../geometry.ts";
import { Guesser } from "../guess.ts";
import { MaskPainter } from "../mask.ts";
import type { MaskPicture } from "../mask.ts";
import type { XY } from "../protocol.ts";
import * as store from "../store.ts";
import { chosenTheme } from "../theme.ts";
import * as tools from "../tools.ts";
import { texts } from "../texts.ts";
import { Split } from "./Split.tsx";
import { Zoom } from "./Zoom.tsx";

/** While painting, the region is what one looks at; while putting points, the picture in it is. */
const SHADES = {
  none: { inside: 0, outside: 0, outline: 0 },
  painting: { inside: 0.42, outside: 0, outline: 0.9 },
  points: { inside: 0, outside: 0.36, outline: 0.8 },
  running: { inside: 0, outside: 0, outline: 0.45 },
} as const;

export function Canvas() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useSignal(0);
  /** Fingers on the canvas; two of them move the picture. */
  const fingers = useRef<Map<number, XY>>(new Map());
  /** Whether there were two since the first came down: the last one left does nothing more. */
  const pinching = useRef(false);
  const lift = (event: PointerEvent) => {
    fingers.current.delete(event.pointerId);
    if (fingers.current.size === 0) pinching.current = false;
  };
  useEffect(() => watchSize(canvas.current, theme), []);
  useEffect(() => paintOn(canvas.current, theme), []);
  const ready = store.original.value !== null;
  return (
    <div class="canvas-frame">
      <canvas
        ref={canvas}
        class={`canvas cursor-${cursor()}`}
        tabIndex={0}
        role="application"
        aria-label={texts.editor.canvas}
        aria-describedby="canvas-help"
        data-testid="canvas"
        onPointerDown={(event) => {
          if (kindOf(event) === "touch") {
            fingers.current.set(event.pointerId, placeOf(event));
            if (fingers.current.size > 1) {
              pinching.current = true;
              tools.letGo();
              return;
            }
          }
          const wheel = event.button === 1;
          if ((event.button !== 0 && !wheel) || !event.isPrimary) return;
          event.currentTarget.setPointerCapture(event.pointerId);
          // Focus without the browser scrolling the page under a finger.
          event.currentTarget.focus({ preventScroll: true });
          event.currentTarget.dataset.byPointer = "";
          event.preventDefault();
          follow(event);
          tools.press(store.view.value, placeOf(event), kindOf(event), wheel ? "hand" : store.inHand.value);
        }}
        onWheel={(event) => {
          event.preventDefault();
          const asked = wheelAsks(event);
          if (asked.kind === "pan") tools.pan(asked.by);
          else tools.zoom(asked.factor, placeOf(event));
          follow(event);
        }}
        onKeyDown={(event) => delete event.currentTarget.dataset.byPointer}
        onPointerMove={(event) => {
          if (pinching.current) {
            const before = [...fingers.current.values()];
            if (!fingers.current.has(event.pointerId)) return;
            fingers.current.set(event.pointerId, placeOf(event));
            const [a, b] = before;
            const [c, d] = fingers.current.values();
            if (a && b && c && d) tools.pinchBy([a, b], [c, d]);
            return;
          }
          if (!event.isPrimary) return;
          if (fingers.current.has(event.pointerId)) fingers.current.set(event.pointerId, placeOf(event));
          follow(event);
          if (!tools.isPressed()) return;
          // Strokes stay smooth where the browser bundles moves.
          const events = event.getCoalescedEvents?.() ?? [];
          for (const one of events.length > 0 ? events : [event])
            tools.move(store.view.value, placeOf(one, event.currentTarget));
        }}
        onPointerUp={(event) => {
          const pinched = pinching.current;
          lift(event);
          if (!event.isPrimary || pinched) return;
          tools.release();
          if (kindOf(event) === "touch") store.pointer.value = null;
        }}
        onPointerCancel={(event) => {
          lift(event);
          tools.letGo();
        }}
        onPointerLeave={() => {
          if (tools.isPressed()) return;
          store.pointer.value = null;
          store.hovered.value = null;
        }}
        onContextMenu={(event) => event.preventDefault()}
      />
      <p id="canvas-help" class="visually-hidden">
        {texts.editor.canvasHelp}
      </p>
      {!ready && (
        <p class="opening" role="status">
          {texts.editor.opening}
        </p>
      )}
      {ready && <Split />}
      {ready && <Hint />}
      {ready && <Badge />}
      {ready && <Zoom />}
    </div>
  );
}

/** What to do next, while there is something to say. */
function Hint() {
  const hint = hintOf();
  if (hint === null) return null;
  const half = store.half.value !== null || store.crosshair.value !== null;
  return (
    <p class="hint">
      <span data-testid="hint">{hint}</span>
      {half && (
        <button type="button" title="Esc" onClick={() => tools.cancel()}>
          {texts.hints.cancel}
        </button>
      )}
    </p>
  );
}

function hintOf(): string | null {
  const { hints } = texts;
  if (store.comparing.value || !store.editable.value) return null;
  const tool = store.tool.value;
  if (tool === "hand") return null;
  if (tool !== "points") {
    if (store.crosshair.value !== null) return hints.crosshairDab;
    return store.document.value?.mask.length ? null : hints[tool];
  }
  if (store.crosshair.value !== null) return store.half.value === null ? hints.crosshair : hints.crosshairTarget;
  const touch = matchMedia("(hover: none)").matches;
  if (store.half.value !== null) return touch ? hints.secondTouch : hints.second;
  return store.drags.value.length === 0 && store.gesture.value === null
    ? touch
      ? hints.firstTouch
      : hints.first
    : null;
}

function Badge() {
  const showing = store.showing.value;
  const looked = store.room.value.moments.find(({ id }) => id === store.scrub.value?.id);
  if (store.guess.value !== null && store.guessing.value) {
    const { guess, guessRunning, guessViewer } = texts.hints;
    return (
      <p class="badge badge-guess" data-testid="guess">
        {store.running.value || store.starting.value ? guessRunning : store.editable.value ? guess : guessViewer}
      </p>
    );
  }
  if (showing === "original" && !store.comparing.value) return null;
  return (
    <p class={`badge badge-${showing}`} data-testid="showing">
      {showing === "preview" && <i />}
      {showing === "moment" ? texts.hints.moment(looked?.iteration ?? 0) : texts.hints[showing]}
    </p>
  );
}

function cursor(): string {
  const doing = store.gesture.value?.kind;
  if (doing === "pan") return "grabbing";
  if (store.inHand.value === "hand") return "grab";
  if (store.brushing.value !== null) return "none";
  if (doing === "move") return "grabbing";
  return store.hovered.value !== null ? "grab" : "cross";
}

function kindOf(event: MouseEvent & { readonly pointerType?: string }): tools.PointerKind {
  return event.pointerType === "touch" ? "touch" : "mouse";
}

function placeOf(event: MouseEvent, canvas = event.currentTarget as Element): XY {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

/** Keeps in mind where the pointer is, for the brush, the dotted line to a target, and what lights up. */
function follow(event: MouseEvent & { readonly currentTarget: Element }): void {
  const picture = store.picture.value;
  if (picture === null) return;
  const at = placeOf(event);
  const here = toPicture(store.view.value, at);
  const brushing = store.brushing.value !== null;
  store.pointer.value = brushing || isInside(picture, here) ? here : null;
  if (tools.isPressed() || kindOf(event) === "touch") return;
  const found =
    store.inHand.value !== "points" || store.half.value !== null ? null : hit(tools.places(store.view.value), at, 14);
  const before = store.hovered.value;
  if (found?.id !== before?.id || found?.end !== before?.end) {
    store.hovered.value = found && { id: found.id, end: found.end };
  }
}

function watchSize(canvas: HTMLCanvasElement | null, theme: Signal<number>): (() => void) | undefined {
  const frame = canvas?.parentElement;
  if (!frame) return undefined;
  const measure = () => {
    store.canvasSize.value = { width: frame.clientWidth, height: frame.clientHeight };
  };
  const observer = new ResizeObserver(measure);
  observer.observe(frame);
  measure();
  const again = () => (theme.value += 1);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", again);
  const stopTheme = effect(() => {
    chosenTheme.value;
    theme.value = theme.peek() + 1;
  });
  // The window went to another screen, or the browser's own zoom changed: each query knows one density.
  let density = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
  const sharpen = () => {
    density = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    density.addEventListener("change", sharpen, { once: true });
    again();
  };
  density.addEventListener("change", sharpen, { once: true });
  return () => {
    observer.disconnect();
    stopTheme();
    dark.removeEventListener("change", again);
    density.removeEventListener("change", sharpen);
  };
}

/** Draws the store's scene whenever it changes, at most once a display frame. */
function paintOn(canvas: HTMLCanvasElement | null, theme: Signal<number>): (() => void) | undefined {
  const context = canvas?.getContext("2d");
  if (!canvas || !context) return undefined;
  const painter = new MaskPainter();
  const guesser = new Guesser();
  let mask: MaskPicture | null = null;
  let due = 0;
  let scene: Omit<Scene, "mask" | "guess"> | null = null;
  let plan: store.Guess | null = null;
  let marks: Readonly<Record<string, string>> = {};

  const stopMask = effect(() => {
    const picture = store.picture.value;
    mask = picture && painter.paint(picture, store.mask.value, store.rasters.value, store.stroke.value);
  });
  const stopScene = effect(() => {
    theme.value;
    const picture = store.picture.value;
    const bounds = store.canvasSize.value;
    const density = window.devicePixelRatio || 1;
    if (picture === null || bounds.width === 0) {
      scene = null;
    } else {
      if (store.brush.peek() === 0) store.brush.value = tools.BRUSH.first * Math.max(picture.width, picture.height);
      const style = getComputedStyle(canvas);
      scene = sceneOf(picture, bounds, density, (name) => style.getPropertyValue(name).trim());
    }
    plan = store.guess.value;
    // The mask's own effect makes it; what it is made of is read here, so that it is drawn too.
    store.mask.value;
    store.rasters.value;
    marks = {
      iteration: String(store.room.value.iteration),
      frame: String(store.previews.value),
      scale: String(store.view.value.scale),
      offsetX: String(store.view.value.x),
      offsetY: String(store.view.value.y),
      showing: store.showing.value,
      split: String(store.splitShown.value ?? ""),
      pointing: String(store.others.value.filter(({ cursor }) => cursor !== null).length),
    };
    if (due === 0) due = requestAnimationFrame(paint);
  });

  function paint(): void {
    due = 0;
    if (!canvas || !context) return;
    Object.assign(canvas.dataset, marks);
    const { width, height } = scene?.canvas ?? store.canvasSize.peek();
    const density = scene?.density ?? 1;
    const pixels = { width: Math.round(width * density), height: Math.round(height * density) };
    if (canvas.width !== pixels.width) canvas.width = pixels.width;
    if (canvas.height !== pixels.height) canvas.height = pixels.height;
    const guess = scene && guessed(scene.picture);
    store.guessing.value = guess !== null;
    if (scene === null) context.clearRect(0, 0, canvas.width, canvas.height);
    else draw(context, { ...scene, mask, guess });
  }

  function guessed(picture: Size): Scene["guess"] {
    const bitmap = plan && store[plan.of].peek();
    const guess = plan && bitmap && guesser.guess(bitmap, picture, plan.drags, mask);
    // In milliseconds, for whoever measures.
    if (canvas && guess !== null) canvas.dataset.guess = guesser.milliseconds.toFixed(1);
    else delete canvas?.dataset.guess;
    return guess;
  }

  return () => {
    stopMask();
    stopScene();
    cancelAnimationFrame(due);
  };
}

function sceneOf(
  picture: Size,
  canvas: Size,
  density: number,
  colour: (name: string) => string,
): Omit<Scene, "mask" | "guess"> {
  const showing = store.showing.value;
  const comparing = store.comparing.value;
  const doing = store.gesture.value;
  const pointer = store.crosshair.value ?? store.pointer.value;
  const brush = store.brushing.value;
  const split = store.splitShown.value;
  const looked = store.scrub.value;
  const original = store.original.value;
  const half = doing?.kind === "pull" ? doing.handle : store.half.value;
  const reach = doing?.kind === "pull" ? doing.target : pointer;
  return {
    canvas,
    density,
    view: store.view.value,
    picture,
    base: showing === "result" ? store.result.value : store.original.value,
    preview:
      showing === "preview"
        ? (store.preview.value?.bitmap ?? null)
        : showing === "moment"
          ? (looked?.bitmap ?? null)
          : null,
    split: split !== null && original !== null && !comparing ? { at: split, original } : null,
    shade: SHADES[shadeOf(showing)],
    // At a moment that is only looked at, the points were somewhere else.
    drags: comparing || (looked !== null && looked.id !== store.document.value?.moment) ? [] : store.drags.value,
    half: comparing ? null : half,
    reach: half === null ? null : reach,
    selected: store.selected.value,
    hovered: store.hovered.value,
    crosshair: brush === null ? store.crosshair.value : null,
    brush:
      brush !== null && pointer !== null
        ? { at: pointer, radius: store.brush.value, softness: store.softness.value }
        : null,
    people: comparing ? [] : store.others.value,
    accent: colour("--accent"),
    ground: colour("--board"),
  };
}

function shadeOf(showing: typeof store.showing.value): keyof typeof SHADES {
  const painting = store.tool.value === "paint" || store.tool.value === "erase";
  if (store.comparing.value || !store.maskShown.value) return "none";
  if (painting) return "painting";
  if (store.running.value) return "running";
  return showing === "result" || showing === "moment" || store.splitShown.value !== null ? "none" : "points";
}
