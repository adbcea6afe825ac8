/** Following what another person sees, until one's own view is moved. */

import { effect } from "@preact/signals";
import type { Size, View } from "./geometry.ts";
import { toCanvas, toPicture } from "./geometry.ts";
import type { Sight } from "./protocol.ts";
import * as store from "./store.ts";

/** What a view shows: the centre and the width, in pixels of the picture. */
export function sightOf(view: View, canvas: Size): Sight {
  const [x, y] = toPicture(view, [canvas.width / 2, canvas.height / 2]);
  return [x, y, canvas.width / view.scale];
}

/** The view on this canvas that shows what another person sees on theirs. */
export function viewOf([x, y, width]: Sight, canvas: Size): View {
  const scale = canvas.width / width;
  const [left, top] = toCanvas({ scale, x: 0, y: 0 }, [x, y]);
  return { scale, x: canvas.width / 2 - left, y: canvas.height / 2 - top };
}

export function follow(person: string | null): void {
  store.followed.value = person === store.followed.value ? null : person;
}

/** Moves the view as the followed person does. Returns a function that stops. */
export function followViews(): () => void {
  /** What was shown last, and whose it was. */
  let last: { readonly person: string; readonly view: View | null } | null = null;
  return effect(() => {
    const person = store.followed.value;
    const camera = store.camera.value;
    if (person === null) {
      last = null;
      return;
    }
    const moved = last?.person === person && camera !== last.view;
    if (moved || !store.room.value.people[person]?.here) {
      store.followed.value = null;
      return;
    }
    const canvas = store.canvasSize.value;
    const sight = store.room.value.presences[person]?.view ?? null;
    const view = sight === null || canvas.width === 0 ? null : viewOf(sight, canvas);
    if (last?.person === person && isSame(view, last.view)) return;
    last = { person, view };
    store.camera.value = view;
  });
}

function isSame(one: View | null, other: View | null): boolean {
  if (one === null || other === null) return one === other;
  return one.x === other.x && one.y === other.y && one.scale === other.scale;
}
