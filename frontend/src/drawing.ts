/** A picture that is made from words: one at a time in this page, and it goes on while the page shows something else. */

import { signal } from "@preact/signals";
import * as api from "./api.ts";
import { ApiError } from "./api.ts";
import { linesOf } from "./lines.ts";
import { texts } from "./texts.ts";

/** What the server tells of a drawing; the last three end it. */
export type News =
  | { readonly type: "waiting"; readonly before: number; readonly seconds_left: number | null }
  | { readonly type: "progress"; readonly step: number; readonly steps: number; readonly seconds_left: number | null }
  | { readonly type: "preview"; readonly picture: string }
  | { readonly type: "done" }
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "cancelled" };

export interface Drawing {
  /** Null until the server has taken it. */
  readonly id: string | null;
  readonly prompt: string;
  /** The same words with the same seed give the same picture; null until it is known. */
  readonly seed: number | null;
  readonly phase: "asking" | "waiting" | "drawing" | "done" | "failed";
  /** How many others go first. */
  readonly before: number;
  readonly step: number;
  readonly steps: number;
  readonly secondsLeft: number | null;
  /** Address of what there is to see of it. */
  readonly picture: string | null;
  readonly message: string;
}

/** Milliseconds before a line that broke off is asked for again, by how often it has. */
const AGAIN = [500, 1000, 2000, 4000, 8000];

export const drawing = signal<Drawing | null>(null);

let following: AbortController | null = null;

export function asked(prompt: string, seed: number | null): Drawing {
  return {
    id: null,
    prompt,
    seed,
    phase: "asking",
    before: 0,
    step: 0,
    steps: 0,
    secondsLeft: null,
    picture: null,
    message: "",
  };
}

/** The drawing after a word of the server's; null once it was given up. */
export function told(now: Drawing, news: News): Drawing | null {
  switch (news.type) {
    case "waiting":
      return { ...now, phase: "waiting", before: news.before, secondsLeft: news.seconds_left };
    case "progress":
      return { ...now, phase: "drawing", step: news.step, steps: news.steps, secondsLeft: news.seconds_left };
    case "preview":
      return { ...now, phase: "drawing", picture: news.picture };
    case "done":
      return { ...now, phase: "done", secondsLeft: null };
    case "failed":
      return { ...now, phase: "failed", picture: null, message: news.message };
    case "cancelled":
      return null;
  }
}

/** Reads a line; null for a kind of a newer server, which older pages pass over. */
export function readNews(line: string): News | null {
  const news = JSON.parse(line) as News;
  return ["waiting", "progress", "preview", "done", "failed", "cancelled"].includes(news.type) ? news : null;
}

/** Whether there is something going on that can be cancelled. */
export function isUnderWay(now: Drawing | null): now is Drawing {
  return now !== null && now.phase !== "done" && now.phase !== "failed";
}

/** Asks for a picture in place of the one before. Throws where the server wants its password first. */
export async function draw(prompt: string, seed: number | null = null): Promise<void> {
  putAway();
  const mine = new AbortController();
  following = mine;
  drawing.value = asked(prompt, seed);
  try {
    const begun = await api.askDrawing(prompt, seed);
    if (mine.signal.aborted) {
      await api.forgetDrawing(begun.id);
      return;
    }
    drawing.value = { ...asked(begun.prompt, begun.seed), id: begun.id, phase: "waiting" };
    await follow(begun.id, mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (error instanceof ApiError && error.reason === "password") {
      drawing.value = null;
      throw error;
    }
    const before = drawing.value ?? asked(prompt, seed);
    drawing.value = told(before, { type: "failed", message: error instanceof Error ? error.message : String(error) });
  }
}

/** Gives up what is being drawn, or forgets what was. */
export function putAway(): void {
  const before = drawing.value;
  following?.abort();
  following = null;
  drawing.value = null;
  if (before?.picture?.startsWith("blob:")) URL.revokeObjectURL(before.picture);
  // What it has meanwhile forgotten by itself, or cannot be told now, it forgets anyway.
  if (before?.id) void api.forgetDrawing(before.id).catch(() => undefined);
}

/** Listens until the end; a line that breaks off is taken up again, and begins with the newest. */
async function follow(id: string, signal: AbortSignal): Promise<void> {
  for (let broken = 0; ; broken++) {
    try {
      const stream = await api.followDrawing(id, signal);
      for await (const line of linesOf(stream)) {
        const news = readNews(line);
        const now = drawing.value;
        if (signal.aborted || now === null) return;
        if (news === null) continue;
        broken = 0;
        if (news.type === "done") {
          // Kept here: the server forgets it sooner than this page does.
          const picture = URL.createObjectURL(await api.fetchDrawing(id));
          if (signal.aborted) return URL.revokeObjectURL(picture);
          drawing.value = told({ ...now, picture }, news);
          return;
        }
        drawing.value = told(now, news);
        if (news.type === "failed" || news.type === "cancelled") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      // What the server has answered, it would answer again.
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) throw error;
    }
    const pause = AGAIN[broken];
    if (pause === undefined) throw new Error(texts.drawing.lost);
    await new Promise((done) => setTimeout(done, pause));
    if (signal.aborted) return;
  }
}
