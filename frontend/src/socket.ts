/**
 * The one WebSocket of a room: says hello, pings, notices a dead line, and comes back by itself. It knows messages, not
 * what they mean.
 */

import { Close, VERSION, decodeMessage, encodeMessage } from "./protocol.ts";
import type { ClientMessage, Hello, ServerMessage } from "./protocol.ts";

export type Connection =
  | { readonly state: "connecting" }
  | { readonly state: "open" }
  /** Lost, or never reached; tried again at `retryAt` (ms, `Date.now()`), or being tried now where that is null. */
  | { readonly state: "lost"; readonly retryAt: number | null }
  /** The server has a password, and asks for it. */
  | { readonly state: "password"; readonly message: string }
  /** The server will not have us; trying again would meet the same answer. */
  | { readonly state: "refused"; readonly code: number; readonly message: string };

export interface SocketOptions {
  readonly url: string;
  /** Asked before the first connection: what lets us in. Throws `Refusal` where nothing will. */
  readonly admit: () => Promise<void>;
  /** What hello says beside the version, asked at every connection. */
  readonly hello: () => Omit<Hello, "type" | "version">;
  readonly onMessage: (message: ServerMessage) => void;
  readonly onConnection: (connection: Connection) => void;
  /** In [0, 1); for the specs. */
  readonly random?: () => number;
}

/** Why trying again would meet the same answer. */
export class Refusal extends Error {
  constructor(readonly connection: Extract<Connection, { readonly state: "refused" | "password" }>) {
    super(connection.message);
  }
}

export interface Socket {
  /** Sends where there is an open connection; false where there is none. */
  send(message: ClientMessage): boolean;
  /** Tries at once instead of waiting. */
  retry(): void;
  /** The line may be dead: gives it up unless it shows life at once. */
  doubt(): void;
  close(): void;
}

const FIRST_WAIT = 500;
const LONGEST_WAIT = 10_000;
/** Milliseconds for the server's welcome, before which its own deadline is unknown. */
const WELCOME_WAIT = 10_000;

/** Milliseconds that a doubted line has to show life. */
const DOUBTED_WAIT = 2_500;

const FINAL: ReadonlySet<number> = new Set([
  Close.WRONG_SECRET,
  Close.UNKNOWN_ROOM,
  Close.UNKNOWN_VERSION,
  Close.ROOM_DELETED,
  Close.REMOVED,
]);

/** Milliseconds to wait before try `attempt` (from 0): doubling, then steady, each with up to half of it taken off by chance. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** attempt);
  return wait * (1 - random() / 2);
}

export function connect(options: SocketOptions): Socket {
  let socket: WebSocket | null = null;
  let attempt = 0;
  let welcomed = false;
  let closed = false;
  let admitted = false;
  let admitting = false;
  let fault = "";
  let retryTimer: ReturnType<typeof setTimeout> | undefined;
  let deadlineTimer: ReturnType<typeof setTimeout> | undefined;
  let pingTimer: ReturnType<typeof setInterval> | undefined;
  let deadline = WELCOME_WAIT;

  function open(): void {
    clearTimeout(retryTimer);
    welcomed = false;
    fault = "";
    deadline = WELCOME_WAIT;
    options.onConnection(attempt === 0 ? { state: "connecting" } : { state: "lost", retryAt: null });
    if (!admitted) {
      void admit();
      return;
    }
    const mine = new WebSocket(options.url);
    mine.binaryType = "arraybuffer";
    socket = mine;
    mine.onopen = () => {
      mine.send(encodeMessage({ type: "hello", version: VERSION, ...options.hello() }));
    };
    mine.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      if (mine === socket) receive(event.data);
    };
    mine.onclose = (event) => {
      if (mine === socket) lost(event.code, event.reason);
    };
    watch();
  }

  async function admit(): Promise<void> {
    if (admitting) return;
    admitting = true;
    try {
      await options.admit();
      admitted = true;
    } catch (error) {
      if (closed) return;
      if (error instanceof Refusal) options.onConnection(error.connection);
      else lost(0, "");
      return;
    } finally {
      admitting = false;
    }
    if (!closed) open();
  }

  function receive(data: ArrayBuffer): void {
    watch();
    let message: ServerMessage | null;
    try {
      message = decodeMessage(data);
    } catch (error) {
      console.error(error);
      return;
    }
    if (message === null) return;
    if (message.type === "error") fault = message.message;
    if (message.type === "welcome") {
      welcomed = true;
      attempt = 0;
      deadline = message.deadline * 1000;
      clearInterval(pingTimer);
      pingTimer = setInterval(() => send({ type: "ping", time: Date.now() }), message.heartbeat * 1000);
      watch();
      options.onMessage(message);
      options.onConnection({ state: "open" });
      return;
    }
    options.onMessage(message);
  }

  /** Starts the deadline anew: the line has just shown life. */
  function watch(): void {
    clearTimeout(deadlineTimer);
    deadlineTimer = setTimeout(drop, deadline);
  }

  /** Gives a silent line up. A dead one may take minutes to say so itself, hence not through its close event. */
  function drop(): void {
    const dead = socket;
    lost(0, "");
    dead?.close();
  }

  function lost(code: number, reason: string): void {
    socket = null;
    welcomed = false;
    clearInterval(pingTimer);
    clearTimeout(deadlineTimer);
    if (closed) return;
    if (code === Close.PASSWORD) {
      admitted = false;
      options.onConnection({ state: "password", message: fault || reason });
      return;
    }
    if (FINAL.has(code)) {
      options.onConnection({ state: "refused", code, message: fault || reason });
      return;
    }
    const wait = backoff(attempt, options.random);
    attempt += 1;
    clearTimeout(retryTimer);
    retryTimer = setTimeout(open, wait);
    options.onConnection({ state: "lost", retryAt: Date.now() + wait });
  }

  function send(message: ClientMessage): boolean {
    if (socket === null || !welcomed || socket.readyState !== WebSocket.OPEN) return false;
    socket.send(encodeMessage(message));
    return true;
  }

  function retry(): void {
    if (!closed && socket === null && !admitting) open();
  }

  function doubt(): void {
    if (!send({ type: "ping", time: Date.now() })) return;
    clearTimeout(deadlineTimer);
    deadlineTimer = setTimeout(drop, Math.min(deadline, DOUBTED_WAIT));
  }

  open();
  return {
    send,
    retry,
    doubt,
    close() {
      closed = true;
      clearTimeout(retryTimer);
      const mine = socket;
      lost(1000, "");
      mine?.close(1000);
    },
  };
}
