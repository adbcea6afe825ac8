import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
  afterEvent,
  cancelGeneration,
  candidates,
  chooseCandidate,
  discardGeneration,
  generateMore,
  generate,
  generation,
  isUnderWay,
  parseEvent,
  requested,
} from "./generation.ts";
import type { Generation, GenerationEvent } from "./generation.ts";

const PREVIEW = "data:image/webp;base64,AAAA";
let requests: string[];
/** The events of each stream in turn; "" breaks it off at once. */
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
  discardGeneration();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const lines = (...news: GenerationEvent[]) => news.map((one) => `${JSON.stringify(one)}\n`).join("");
const after = (...news: GenerationEvent[]) =>
  news.reduce<Generation | null>((now, one) => now && afterEvent(now, one), requested("a red apple", null));

it("waits, generates and is done", () => {
  expect(after({ type: "waiting", before: 2, seconds_left: 30 })).toMatchObject({
    phase: "waiting",
    ahead: 2,
    secondsLeft: 30,
  });
  const going: GenerationEvent[] = [
    { type: "progress", step: 5, steps: 50, seconds_left: 9 },
    { type: "preview", picture: PREVIEW },
  ];
  expect(after(...going)).toMatchObject({ phase: "generating", step: 5, steps: 50, secondsLeft: 9, picture: PREVIEW });
  expect(isUnderWay(after(...going))).toBe(true);
  expect(isUnderWay(after(...going, { type: "done" }))).toBe(false);
  expect(after(...going, { type: "failed", message: "no memory" })).toMatchObject({
    phase: "failed",
    message: "no memory",
    picture: null,
  });
  expect(after(...going, { type: "cancelled" })).toBeNull();
});

it("ignores events of a newer server", () => {
  expect(parseEvent('{"type":"music"}')).toBeNull();
  expect(parseEvent('{"type":"done"}')).toEqual({ type: "done" });
});

it("follows a generation to its end and keeps the picture", async () => {
  streams = [lines({ type: "progress", step: 1, steps: 2, seconds_left: null }, { type: "done" })];
  await generate("a red apple");
  expect(generation.value).toMatchObject({ phase: "done", id: "d1", seed: 7, picture: "blob:picture" });
  expect(requests).toEqual(["POST /api/generations", "GET /api/generations/d1", "GET /api/generations/d1/picture"]);
});

it("reconnects when the stream breaks off, and says when it gives up", async () => {
  streams = ["", lines({ type: "preview", picture: PREVIEW }), lines({ type: "done" })];
  const done = generate("a red apple");
  await vi.advanceTimersByTimeAsync(5_000);
  await done;
  expect(generation.value?.phase).toBe("done");
  streams = [];
  const lost = generate("a red apple");
  await vi.advanceTimersByTimeAsync(60_000);
  await lost;
  expect(generation.value).toMatchObject({ phase: "failed" });
  expect(generation.value?.message).not.toBe("");
});

it("keeps candidates of the prompt, of which one is shown", async () => {
  streams = [lines({ type: "done" }), lines({ type: "done" }), lines({ type: "failed", message: "no memory" })];
  await generate("a red apple");
  await generateMore(3);
  expect(generation.value).toMatchObject({ phase: "failed", message: "no memory" });
  expect(candidates.value).toHaveLength(2);
  const [first] = candidates.value;
  if (first !== undefined) chooseCandidate(first);
  expect(generation.value).toBe(first);
  streams = [lines({ type: "waiting", before: 1, seconds_left: null })];
  const going = generateMore(1);
  await vi.advanceTimersByTimeAsync(0);
  cancelGeneration();
  await vi.advanceTimersByTimeAsync(10_000);
  await going;
  expect(generation.value).toBe(candidates.value[1]);
  discardGeneration();
  expect([generation.value, candidates.value]).toEqual([null, []]);
});

it("shows what the server refuses", async () => {
  vi.stubGlobal("fetch", () =>
    Promise.resolve(new Response('{"error":{"message":"no words","reason":"invalid"}}', { status: 400 })),
  );
  await generate("");
  expect(generation.value).toMatchObject({ phase: "failed", message: "no words" });
  vi.stubGlobal("fetch", () =>
    Promise.resolve(new Response('{"error":{"message":"say it","reason":"password"}}', { status: 401 })),
  );
  await expect(generate("a red apple")).rejects.toThrow("say it");
  expect(generation.value).toBeNull();
});

it("is cancelled, on the server too", async () => {
  streams = [lines({ type: "waiting", before: 1, seconds_left: null })];
  const going = generate("a red apple");
  await vi.advanceTimersByTimeAsync(0);
  expect(generation.value).toMatchObject({ phase: "waiting", ahead: 1 });
  discardGeneration();
  await vi.advanceTimersByTimeAsync(10_000);
  await going;
  expect(generation.value).toBeNull();
  expect(requests.at(-1)).toBe("DELETE /api/generations/d1");
});
