import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeWebSocket, newest, welcome } from "./fake-socket.ts";
import type { ServerMessage } from "./protocol.ts";
import { RoomSocket, retryDelay } from "./socket.ts";
import type { Connection } from "./socket.ts";

let socket: RoomSocket;
let states: Connection[];
let messages: ServerMessage[];
let authorization: () => Promise<void>;
/** The authorization is a promise: what follows from it comes a few turns later. */
const settle = () => vi.advanceTimersByTimeAsync(0);

beforeEach(async () => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", FakeWebSocket);
  FakeWebSocket.made = [];
  states = [];
  messages = [];
  authorization = () => Promise.resolve();
  socket = new RoomSocket({
    url: "ws://here/ws/r",
    authorize: () => authorization(),
    hello: () => ({ since: 7, of: "life" }),
    onMessage: (message) => messages.push(message),
    onConnection: (connection) => states.push(connection),
    random: () => 0,
  });
  await settle();
});

afterEach(() => {
  socket.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const enter = (): FakeWebSocket => {
  const one = newest();
  one.opens();
  one.says(welcome);
  return one;
};

/** The page gets no time for so many milliseconds: what is due fires afterwards, once. */
const hold = (milliseconds: number): void => {
  vi.setSystemTime(Date.now() + milliseconds);
  vi.runOnlyPendingTimers();
};

describe("a connection", () => {
  it("says hello first and counts as open once it is welcome", () => {
    newest().opens();
    expect(newest().sent).toEqual([{ type: "hello", version: "livedrag.v1", since: 7, of: "life" }]);
    expect(states.at(-1)).toEqual({ state: "connecting" });
    expect(socket.send({ type: "stop", op_id: "o" })).toBe(false);
    newest().says(welcome);
    expect(states.at(-1)).toEqual({ state: "open" });
    expect(socket.send({ type: "stop", op_id: "o" })).toBe(true);
  });

  it("gives a doubted line up soon, unless it shows life", () => {
    const first = enter();
    socket.check();
    expect(first.sent.at(-1)?.type).toBe("ping");
    vi.advanceTimersByTime(2_000);
    first.says({ type: "pong", time: 1 });
    vi.advanceTimersByTime(2_000);
    expect(states.at(-1)).toEqual({ state: "open" });
    socket.check();
    vi.advanceTimersByTime(2_600);
    expect(states.at(-1)).toMatchObject({ state: "lost" });
  });

  it("pings at the server's heartbeat and gives a silent line up at its deadline", () => {
    const first = enter();
    vi.advanceTimersByTime(7_000);
    expect(first.sent.filter(({ type }) => type === "ping")).toHaveLength(2);
    vi.advanceTimersByTime(1_000);
    expect(first.readyState).toBe(3);
    expect(states.at(-1)).toMatchObject({ state: "lost" });
  });

  it("stays as long as the server shows life", () => {
    const first = enter();
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(5_000);
      first.says({ type: "pong", time: 1 });
    }
    expect(states.at(-1)).toEqual({ state: "open" });
    expect(FakeWebSocket.made).toHaveLength(1);
  });

  it("stays where timers run once a minute and every ping is answered", () => {
    const first = enter();
    for (let minute = 0; minute < 5; minute++) {
      hold(60_000);
      first.says({ type: "pong", time: 1 });
    }
    expect(states.at(-1)).toEqual({ state: "open" });
    expect(FakeWebSocket.made).toHaveLength(1);
  });

  it("asks again when the page was held up, and gives that ping its time", () => {
    const first = enter();
    vi.advanceTimersByTime(3_000);
    const pings = () => first.sent.filter(({ type }) => type === "ping").length;
    const before = pings();
    hold(3_600_000);
    expect(pings()).toBeGreaterThan(before);
    vi.advanceTimersByTime(4_000);
    expect(states.at(-1)).toEqual({ state: "open" });
    first.says({ type: "pong", time: 1 });
    vi.advanceTimersByTime(2_000);
    expect(states.at(-1)).toEqual({ state: "open" });
  });

  it("gives up a silent connection even if every timer is late", () => {
    enter();
    hold(60_000);
    hold(60_000);
    hold(60_000);
    expect(states.at(-1)).toMatchObject({ state: "lost" });
  });

  it("waits for a welcome while the page is held up", () => {
    newest().opens();
    hold(60_000);
    newest().says(welcome);
    expect(states.at(-1)).toEqual({ state: "open" });
    expect(FakeWebSocket.made).toHaveLength(1);
  });

  it("comes back by itself, waiting longer each time, and from the start after a welcome", () => {
    enter().closes(1006);
    for (const wait of [500, 1000, 2000]) {
      const made = FakeWebSocket.made.length;
      vi.advanceTimersByTime(wait - 1);
      expect(FakeWebSocket.made).toHaveLength(made);
      vi.advanceTimersByTime(1);
      expect(FakeWebSocket.made).toHaveLength(made + 1);
      newest().closes(1006);
    }
    vi.advanceTimersByTime(4_000);
    enter().closes(1006);
    vi.advanceTimersByTime(500);
    expect(FakeWebSocket.made).toHaveLength(6);
  });

  it("tries at once when asked", () => {
    enter().closes(1006);
    socket.reconnectNow();
    expect(FakeWebSocket.made).toHaveLength(2);
    socket.reconnectNow();
    vi.advanceTimersByTime(2_000);
    expect(FakeWebSocket.made).toHaveLength(2);
  });

  it("does not try again where the answer would be the same, and says why", () => {
    newest().opens();
    newest().says({ type: "error", reason: "wrong_secret", message: "the secret does not open this room" });
    newest().closes(4403, "wrong secret");
    expect(states.at(-1)).toEqual({ state: "refused", code: 4403, message: "the secret does not open this room" });
    vi.advanceTimersByTime(60_000);
    expect(FakeWebSocket.made).toHaveLength(1);
  });

  it("asks for access again, once, when a later connection is denied", async () => {
    const authorize = vi.fn(() => Promise.resolve());
    authorization = authorize;
    enter().closes(1006);
    vi.advanceTimersByTime(500);
    newest().closes(4403, "wrong secret");
    await settle();
    expect(authorize).toHaveBeenCalledOnce();
    expect(FakeWebSocket.made).toHaveLength(3);
    newest().closes(4403, "wrong secret");
    await settle();
    expect(states.at(-1)).toMatchObject({ state: "refused", message: "wrong secret" });
    expect(FakeWebSocket.made).toHaveLength(3);
  });

  it("passes over garbage and messages of a newer server", () => {
    const quiet = vi.spyOn(console, "error").mockImplementation(() => undefined);
    const first = enter();
    first.onmessage?.({ data: new Uint8Array([0xc1, 0xff]).buffer });
    first.says({ type: "hologram", depth: 3 });
    first.says({ type: "people", people: { u1: "Ada" } });
    expect(messages.map(({ type }) => type)).toEqual(["welcome", "people"]);
    expect(quiet).toHaveBeenCalledOnce();
    quiet.mockRestore();
  });

  it("is quiet once closed", () => {
    const first = enter();
    const said = states.length;
    socket.close();
    first.closes(1000);
    vi.advanceTimersByTime(60_000);
    expect(states).toHaveLength(said);
    expect(FakeWebSocket.made).toHaveLength(1);
  });
});

it("waits between half and the whole of a doubling time, ten seconds at most", () => {
  expect(retryDelay(0, () => 0)).toBe(500);
  expect(retryDelay(2, () => 1)).toBe(1000);
  expect(retryDelay(30, () => 0)).toBe(10_000);
});
