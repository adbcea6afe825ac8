import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { asked, draw, drawing, isUnderWay, putAway, readNews, told } from "./drawing.ts";
import type { Drawing, News } from "./drawing.ts";

const PREVIEW = "data:image/webp;base64,AAAA";
let requests: string[];
/** What the stream tells at each time it is asked for; "" breaks it off at once. */
let streams: string[];

beforeEach(() => {
  vi.useFakeTimers();
  requests = [];
  vi.stubGlobal("URL", { createObjectURL: () => "blob:picture", revokeObjectURL: () => undefined });
  vi.stubGlobal("fetch", (path: string, init: RequestInit = {}) => {
    requests.push(`${init.method ?? "GET"} ${path}`);
    if (init.method === "POST")
      return Promise.resolve(new Response('{"id":"d1","prompt":"a red apple","seed":7}', { status: 201 }));
    if (path.endsWith("/picture")) return Promise.resolve(new Response("png"));
    return Promise.resolve(new Response(streams.shift() ?? ""));
  });
});

afterEach(() => {
  putAway();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const lines = (...news: News[]) => news.map((one) => `${JSON.stringify(one)}\n`).join("");
const after = (...news: News[]) =>
  news.reduce<Drawing | null>((now, one) => now && told(now, one), asked("a red apple", null));

it("waits, draws and is done", () => {
  expect(after({ type: "waiting", before: 2, seconds_left: 30 })).toMatchObject({
    phase: "waiting",
    before: 2,
    secondsLeft: 30,
  });
  const going: News[] = [
    { type: "progress", step: 5, steps: 50, seconds_left: 9 },
    { type: "preview", picture: PREVIEW },
  ];
  expect(after(...going)).toMatchObject({ phase: "drawing", step: 5, steps: 50, secondsLeft: 9, picture: PREVIEW });
  expect(isUnderWay(after(...going))).toBe(true);
  expect(isUnderWay(after(...going, { type: "done" }))).toBe(false);
  expect(after(...going, { type: "failed", message: "no memory" })).toMatchObject({
    phase: "failed",
    message: "no memory",
    picture: null,
  });
  expect(after(...going, { type: "cancelled" })).toBeNull();
});

it("passes over what a newer server tells", () => {
  expect(readNews('{"type":"music"}')).toBeNull();
  expect(readNews('{"type":"done"}')).toEqual({ type: "done" });
});

it("follows a drawing to its end and keeps the picture", async () => {
  streams = [lines({ type: "progress", step: 1, steps: 2, seconds_left: null }, { type: "done" })];
  await draw("a red apple");
  expect(drawing.value).toMatchObject({ phase: "done", id: "d1", seed: 7, picture: "blob:picture" });
  expect(requests).toEqual(["POST /api/drawings", "GET /api/drawings/d1", "GET /api/drawings/d1/picture"]);
});

it("takes a line up again that broke off, and gives up in words", async () => {
  streams = ["", lines({ type: "preview", picture: PREVIEW }), lines({ type: "done" })];
  const done = draw("a red apple");
  await vi.advanceTimersByTimeAsync(5_000);
  await done;
  expect(drawing.value?.phase).toBe("done");
  streams = [];
  const lost = draw("a red apple");
  await vi.advanceTimersByTimeAsync(60_000);
  await lost;
  expect(drawing.value).toMatchObject({ phase: "failed" });
  expect(drawing.value?.message).not.toBe("");
});

it("says what the server refuses", async () => {
  vi.stubGlobal("fetch", () =>
    Promise.resolve(new Response('{"error":{"message":"no words","reason":"invalid"}}', { status: 400 })),
  );
  await draw("");
  expect(drawing.value).toMatchObject({ phase: "failed", message: "no words" });
  vi.stubGlobal("fetch", () =>
    Promise.resolve(new Response('{"error":{"message":"say it","reason":"password"}}', { status: 401 })),
  );
  await expect(draw("a red apple")).rejects.toThrow("say it");
  expect(drawing.value).toBeNull();
});

it("is cancelled, and tells the server", async () => {
  streams = [lines({ type: "waiting", before: 1, seconds_left: null })];
  const going = draw("a red apple");
  await vi.advanceTimersByTimeAsync(0);
  expect(drawing.value).toMatchObject({ phase: "waiting", before: 1 });
  putAway();
  await vi.advanceTimersByTimeAsync(10_000);
  await going;
  expect(drawing.value).toBeNull();
  expect(requests.at(-1)).toBe("DELETE /api/drawings/d1");
});
