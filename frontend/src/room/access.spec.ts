import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { roomRequest } from "./access.ts";

/** Answers to what comes next; beyond them, the server has no objections. */
let answers: Response[];
let requests: string[];
let key: { readonly room: string; readonly secret: string };
let rooms = 0;

const denied = () => refusal("wrong_secret", "this link does not open the room: ask for another");
const refusal = (reason: string, message: string) =>
  new Response(JSON.stringify({ error: { reason, message } }), { status: 403 });
const entered = () => new Response('{"role":"editor","ticket":"t"}');

beforeEach(() => {
  // What the page has learned about a room lasts as long as the page.
  rooms += 1;
  key = { room: `r${rooms}`, secret: "s3cret" };
  answers = [];
  requests = [];
  vi.stubGlobal("fetch", (path: string, init: RequestInit = {}) => {
    const secret = new Headers(init.headers).get("Authorization");
    requests.push([init.method ?? "GET", path.replace(`/api/rooms/${key.room}`, ""), secret].filter(Boolean).join(" "));
    return Promise.resolve(answers.shift() ?? new Response("fine"));
  });
});

afterEach(() => vi.unstubAllGlobals());

it("relies on the cookie", async () => {
  expect(await (await roomRequest(key, "/result")).text()).toBe("fine");
  expect(requests).toEqual(["GET /result"]);
});

it("enters again when the cookie is gone", async () => {
  answers = [denied(), entered()];
  expect(await (await roomRequest(key, "/result")).text()).toBe("fine");
  expect(requests).toEqual(["GET /result", "POST /enter", "GET /result"]);
});

it("enters once for requests that are denied together", async () => {
  answers = [denied(), denied(), entered()];
  await Promise.all([roomRequest(key, "/result"), roomRequest(key, "/moments/1")]);
  expect(requests.filter((one) => one === "POST /enter")).toHaveLength(1);
});

it("sends the secret where the browser sends no cookie", async () => {
  answers = [denied(), entered(), denied()];
  await roomRequest(key, "/result");
  await roomRequest(key, "/mask", { method: "PUT" });
  expect(requests).toEqual([
    "GET /result",
    "POST /enter",
    "GET /result",
    "GET /result Bearer s3cret",
    "PUT /mask Bearer s3cret",
  ]);
});

it("says what the server says when the link no longer opens the room", async () => {
  answers = [denied(), denied()];
  await expect(roomRequest(key, "/result")).rejects.toThrow("ask for another");
  expect(requests).toEqual(["GET /result", "POST /enter"]);
});

it("does not enter again for what this person may not do", async () => {
  answers = [refusal("forbidden", "only an owner of the room can do this")];
  await expect(roomRequest(key, "/links")).rejects.toThrow("only an owner");
  expect(requests).toHaveLength(1);
});
