import { afterEach, beforeEach, expect, it, vi } from "vitest";
import {
  afterEvent,
  cancelGeneration,
  candidates,
  chooseCandidate,
  discardGeneration,
  generate,
  generateMissing,
  generation,
  isUnderWay,
  ongoing,
  parseEvent,
  requested,
} from "./generation.ts";
import type { Generation, GenerationEvent } from "./generation.ts";

const PREVIEW = "data:image/webp;base64,AAAA";
let requests: string[];
/** The events of each stream in turn; "" breaks it off at once. */
let streams: string[];
let accepts: number;

beforeEach(() => {
  vi.useFakeTimers();
  requests = [];
  accepts = 0;
  vi.stubGlobal("URL", { createObjectURL: () => "blob:picture", revokeObjectURL: () => undefined });
  vi.stubGlobal("fetch", (path: string, init: RequestInit = {}) => {
    requests.push(`${init.method ?? "GET"} ${path}`);
    if (init.method === "POST") {
      const accepted = { id: `d${(accepts += 1)}`, prompt: "a red apple", seed: 6 + accepts };
      return Promise.resolve(new Response(JSON.stringify(accepted), { status: 201 }));
    }
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

const DONE = lines({ type: "done" });

it("generates four candidates, and shows the first while the others follow", async () => {
  const first = lines({ type: "progress", step: 1, steps: 2, seconds_left: null }, { type: "done" });
  streams = [first, DONE, lines({ type: "waiting", before: 1, seconds_left: null })];
  const going = generate("a red apple");
  await vi.advanceTimersByTimeAsync(0);
  expect(generation.value).toMatchObject({ phase: "done", id: "d1", seed: 7, picture: "blob:picture" });
  expect(ongoing.value).toMatchObject({ phase: "waiting", id: "d3" });
  expect(candidates.value).toHaveLength(2);
  expect(requests.slice(0, 3)).toEqual([
    "POST /api/generations",
    "GET /api/generations/d1",
    "GET /api/generations/d1/picture",
  ]);
  const second = candidates.value[1];
  if (second !== undefined) chooseCandidate(second);
  streams = [DONE, DONE];
  await vi.advanceTimersByTimeAsync(5_000);
  await going;
  expect(candidates.value.map(({ seed }) => seed)).toEqual([7, 8, 9, 10]);
  expect(generation.value).toBe(second);
  expect(ongoing.value).toBeNull();
});

it("reconnects when the stream breaks off, and says when it gives up", async () => {
  streams = ["", lines({ type: "preview", picture: PREVIEW }), DONE, DONE, DONE, DONE];
  const done = generate("a red apple");
  await vi.advanceTimersByTimeAsync(5_000);
  await done;
  expect(candidates.value).toHaveLength(4);
  streams = [];
  const lost = generate("a red apple");
  await vi.advanceTimersByTimeAsync(60_000);
  await lost;
  expect(generation.value).toMatchObject({ phase: "failed" });
  expect(generation.value?.message).not.toBe("");
});

it("keeps the candidates before one that fails or is cancelled, and generates the missing ones", async () => {
  streams = [DONE, DONE, lines({ type: "failed", message: "no memory" })];
  await generate("a red apple");
  expect(ongoing.value).toMatchObject({ phase: "failed", message: "no memory" });
  expect(candidates.value).toHaveLength(2);
  const [first] = candidates.value;
  expect(generation.value).toBe(first);
  streams = [DONE, lines({ type: "waiting", before: 1, seconds_left: null })];
  const going = generateMissing();
  await vi.advanceTimersByTimeAsync(0);
  cancelGeneration();
  await vi.advanceTimersByTimeAsync(10_000);
  await going;
  expect(candidates.value).toHaveLength(3);
  expect(generation.value).toBe(first);
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
