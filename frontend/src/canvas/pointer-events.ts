/** Turns the canvas's pointer and wheel events into places, presses, pinches and zooms. */

import { batch } from "@preact/signals";
import type { TargetedEvent } from "preact";
import { isInside, toPicture, wheelAction } from "../room/geometry.ts";
import type { XY } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { pan, pinchBy, zoom } from "./camera.ts";
import { dropGesture, hitEnd, isPressed, move, press, release } from "./pointer.ts";
import type { PointerKind } from "./pointer.ts";

type CanvasEvent<E extends Event> = TargetedEvent<HTMLCanvasElement, E>;

const MIDDLE_BUTTON = 1;

export class PointerEvents {
  /** Fingers on the canvas. */
  readonly #touches = new Map<number, XY>();
  /** Whether there were two fingers since the first came down. Until all are lifted, they only move the view. */
  #pinching = false;

  onPointerDown = (event: CanvasEvent<PointerEvent>): void => {
    if (kindOf(event) === "touch") {
      this.#touches.set(event.pointerId, placeOf(event));
      if (this.#touches.size > 1) {
        this.#pinching = true;
        store.finger.value = null;
        dropGesture();
        return;
      }
    }
    const middle = event.button === MIDDLE_BUTTON;
    if ((event.button !== 0 && !middle) || !event.isPrimary) return;
    const canvas = event.currentTarget;
    canvas.setPointerCapture(event.pointerId);
    // Focus by hand, so that the browser does not scroll the page under a finger.
    canvas.focus({ preventScroll: true });
    canvas.dataset.focusShown = "";
    event.preventDefault();
    followPointer(event);
    press(store.view.value, placeOf(event), kindOf(event), middle ? "hand" : store.activeTool.value);
    followFinger(event);
  };

  onPointerMove = (event: CanvasEvent<PointerEvent>): void => {
    if (this.#pinching) {
      this.#pinch(event);
      return;
    }
    if (!event.isPrimary) return;
    if (this.#touches.has(event.pointerId)) this.#touches.set(event.pointerId, placeOf(event));
    followPointer(event);
    if (!isPressed()) return;
    // Browsers bundle moves; strokes are smooth with all of them.
    const bundled = event.getCoalescedEvents?.() ?? [];
    const { left, top } = event.currentTarget.getBoundingClientRect();
    batch(() => {
      for (const one of bundled.length > 0 ? bundled : [event]) {
        move(store.view.value, [one.clientX - left, one.clientY - top]);
      }
    });
    followFinger(event);
  };

  onPointerUp = (event: CanvasEvent<PointerEvent>): void => {
    const pinched = this.#pinching;
    this.#lift(event);
    if (!event.isPrimary || pinched) return;
    release();
    if (kindOf(event) === "touch") store.pointer.value = null;
  };

  onPointerCancel = (event: CanvasEvent<PointerEvent>): void => {
    this.#lift(event);
    dropGesture();
  };

  onPointerLeave = (): void => {
    if (isPressed()) return;
    store.pointer.value = null;
    store.hovered.value = null;
  };

  onWheel = (event: CanvasEvent<WheelEvent>): void => {
    event.preventDefault();
    const action = wheelAction(event);
    if (action.kind === "pan") pan(action.by);
    else zoom(action.factor, placeOf(event));
    followPointer(event);
  };

  #pinch(event: CanvasEvent<PointerEvent>): void {
    if (!this.#touches.has(event.pointerId)) return;
    const [a, b] = this.#touches.values();
    this.#touches.set(event.pointerId, placeOf(event));
    const [c, d] = this.#touches.values();
    if (a && b && c && d) pinchBy([a, b], [c, d]);
  }

  #lift(event: PointerEvent): void {
    store.finger.value = null;
    this.#touches.delete(event.pointerId);
    if (this.#touches.size === 0) this.#pinching = false;
  }
}

function kindOf(event: MouseEvent & { readonly pointerType?: string }): PointerKind {
  return event.pointerType === "touch" ? "touch" : "mouse";
}

function placeOf(event: MouseEvent): XY {
  const box = (event.currentTarget as Element).getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function followFinger(event: MouseEvent): void {
  const places = isPressed() && store.activeTool.value !== "hand";
  store.finger.value = places && kindOf(event) === "touch" ? placeOf(event) : null;
}

/** Stores where the pointer is and which end it hovers over. */
function followPointer(event: MouseEvent): void {
  const picture = store.picture.value;
  if (picture === null) return;
  const at = placeOf(event);
  const place = toPicture(store.view.value, at);
  store.pointer.value = store.activeBrush.value !== null || isInside(picture, place) ? place : null;
  if (isPressed() || kindOf(event) === "touch") return;
  const canHit = store.activeTool.value === "points" && store.pendingHandle.value === null;
  const found = canHit ? hitEnd(store.view.value, at, "mouse") : null;
  const before = store.hovered.value;
  if (found?.id !== before?.id || found?.end !== before?.end) {
    store.hovered.value = found && { id: found.id, end: found.end };
  }
}
