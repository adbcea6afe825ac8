import { beforeEach, expect, it } from "vitest";
import { openRoom } from "./fixtures.ts";
import { follow, followViews, sightOf, viewOf } from "./follow-view.ts";
import type { Sight } from "./protocol.ts";
import * as store from "./store.ts";

const ada = { name: "Ada", colour: "#123456", role: "editor", here: true } as const;

function adaSees(view: Sight | null, here = true): void {
  const presence = { cursor: null, selected: null, tool: "points", busy: false, view } as const;
  store.room.value = { ...store.room.value, people: { ada: { ...ada, here } }, presences: { ada: presence } };
}

beforeEach(() => openRoom());

it("shows the same part of the picture on a canvas of another size", () => {
  const sight = sightOf({ scale: 2, x: -100, y: -40 }, { width: 400, height: 300 });
  const view = viewOf(sight, { width: 200, height: 300 });
  expect(view.scale).toBe(1);
  expect(sightOf(view, { width: 200, height: 300 })).toEqual(sight);
});

it("follows until one moves the view, and only who is here", () => {
  const stop = followViews();
  adaSees([50, 40, 64]);
  expect(store.camera.value).toBeNull();
  follow("ada");
  expect(store.camera.value?.scale).toBe(4);
  adaSees([50, 40, 128]);
  expect(store.camera.value?.scale).toBe(2);
  adaSees(null);
  expect(store.camera.value).toBeNull();
  store.camera.value = { scale: 3, x: 0, y: 0 };
  expect(store.followed.value).toBeNull();
  adaSees([50, 40, 64]);
  expect(store.camera.value.scale).toBe(3);
  follow("ada");
  expect(store.camera.value.scale).toBe(4);
  adaSees([50, 40, 64], false);
  expect(store.followed.value).toBeNull();
  stop();
});
