/**
 * The one WebSocket of a room: says hello, pings, notices a dead connection and reconnects by itself. It passes
 * messages on without knowing what they mean.
 */

import { decodeMessage, encodeMessage } from "./codec.ts";
import { Heartbeat } from "./heartbeat.ts";
import { Close, VERSION } from "./protocol.ts";
import type { ClientMessage, Hello, ServerMessage } from "./protocol.ts";

export type Connection =
  | { readonly state: "connecting" }
  | { readonly state: "open" }
  /** Lost or never established; retried at `retryAt` (ms, `Date.now()`), or right now if that is null. */
  | {
      readonly state: "lost";
      readonly retryAt: number | null;
      /** The server said that it was stopping, and has not been reached since. */
      readonly serverStopped: boolean;
    }
  /** The server requires its password. */
  | { readonly state: "password"; readonly message: string }
  /** The server refuses this client for good. */
  | { readonly state: "refused"; readonly code: number; readonly message: string };

export interface SocketOptions {
  readonly url: string;
  /** Called before the first connection to get access. Throws `ConnectionRefused` if retrying is pointless. */
  readonly authorize: () => Promise<void>;
  /** The fields of hello beside the version, read at every connection. */
  readonly hello: () => Omit<Hello, "type" | "version">;
  readonly onMessage: (message: ServerMessage) => void;
  readonly onConnection: (connection: Connection) => void;
  /** In [0, 1); for the specs. */
  readonly random?: () => number;
}

/** The server has answered, and would answer the same again. */
export class ConnectionRefused extends Error {
  constructor(readonly connection: Extract<Connection, { readonly state: "refused" | "password" }>) {
    super(connection.message);
  }
}

// All in milliseconds.
const FIRST_RETRY = 500;
const MAX_RETRY = 10_000;
/** Until the welcome, which tells the server's own deadline. */
const WELCOME_PATIENCE = 10_000;
/** For a connection that may be dead. */
const CHECK_PATIENCE = 2_500;

const FINAL_CODES: ReadonlySet<number> = new Set([
  Close.WRONG_SECRET,
  Close.UNKNOWN_ROOM,
  Close.UNKNOWN_VERSION,
  Close.ROOM_DELETED,
  Close.REMOVED,
]);

/** Milliseconds before attempt `attempt` (from 0): doubling up to a limit, less up to half of it at random. */
export function retryDelay(attempt: number, random: () => number = Math.random): number {
  return Math.min(MAX_RETRY, FIRST_RETRY * 2 ** attempt) * (1 - random() / 2);
}

export class RoomSocket {
  readonly #options: SocketOptions;
  #socket: WebSocket | null = null;
  #attempt = 0;
  #welcomed = false;
  #closed = false;
  #serverStopped = false;
  #authorized = false;
  #authorizing = false;
  /** Connections since `authorize`. */
  #connections = 0;
  /** What the server said before it closed the connection. */
  #lastError = "";
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  readonly #heartbeat = new Heartbeat(
    () => this.send({ type: "ping", time: Date.now() }),
    () => this.#drop(),
  );

  /** Starts to connect. */
  constructor(options: SocketOptions) {
    this.#options = options;
    this.#connect();
  }

  /** Returns false, and sends nothing, while there is no open connection. */
  send(message: ClientMessage): boolean {
    const socket = this.#socket;
    if (socket === null || !this.#welcomed || socket.readyState !== WebSocket.OPEN) return false;
    socket.send(encodeMessage(message));
    return true;
  }

  /** Reconnects at once instead of waiting. */
  reconnectNow(): void {
    if (!this.#closed && this.#socket === null && !this.#authorizing) this.#connect();
  }

  /** The connection may be dead: drops it unless the server answers soon. */
  check(): void {
    if (this.#welcomed) this.#heartbeat.check(CHECK_PATIENCE);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retryTimer);
    const socket = this.#socket;
    this.#disconnected(1000, "");
    socket?.close(1000);
  }

  #connect(): void {
    clearTimeout(this.#retryTimer);
    this.#welcomed = false;
    this.#lastError = "";
    this.#options.onConnection(this.#attempt === 0 ? { state: "connecting" } : this.#lost(null));
    if (this.#authorized) this.#open();
    else void this.#authorize();
  }

  async #authorize(): Promise<void> {
    if (this.#authorizing) return;
    this.#authorizing = true;
    try {
      await this.#options.authorize();
      this.#authorized = true;
      this.#connections = 0;
    } catch (error) {
      if (this.#closed) return;
      if (error instanceof ConnectionRefused) this.#options.onConnection(error.connection);
      else this.#disconnected(0, "");
      return;
    } finally {
      this.#authorizing = false;
    }
    if (!this.#closed) this.#connect();
  }

  #open(): void {
    this.#connections += 1;
    const socket = new WebSocket(this.#options.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      socket.send(encodeMessage({ type: "hello", version: VERSION, ...this.#options.hello() }));
    };
    socket.onmessage = (event: MessageEvent<ArrayBuffer>) => {
      if (socket === this.#socket) this.#receive(event.data);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.#socket) this.#disconnected(code, reason);
    };
    this.#socket = socket;
    this.#heartbeat.expectAnswer(WELCOME_PATIENCE);
  }

  #receive(data: ArrayBuffer): void {
    if (this.#welcomed) this.#heartbeat.answered();
    const message = decodeOrLog(data);
    if (message === null) return;
    if (message.type === "error") this.#lastError = message.message;
    if (message.type === "welcome") this.#welcome(message.deadline * 1000, message.heartbeat * 1000);
    this.#options.onMessage(message);
    if (message.type === "welcome") this.#options.onConnection({ state: "open" });
  }

  #welcome(deadline: number, heartbeat: number): void {
    this.#welcomed = true;
    this.#serverStopped = false;
    this.#attempt = 0;
    this.#heartbeat.start(heartbeat, deadline - heartbeat);
  }

  /** Gives up a silent connection. A dead one may take minutes to fire its close event, so that isn't awaited. */
  #drop(): void {
    const dead = this.#socket;
    this.#disconnected(0, "");
    dead?.close();
  }

  #disconnected(code: number, reason: string): void {
    this.#socket = null;
    this.#welcomed = false;
    this.#heartbeat.stop();
    if (this.#closed) return;
    if (code === Close.GOING_AWAY) this.#serverStopped = true;
    const message = this.#lastError || reason;
    if (code === Close.WRONG_SECRET && this.#connections > 1) {
      // What `authorize` got no longer opens the room; with new access, the answer is final.
      this.#authorized = false;
      this.#connect();
    } else if (code === Close.PASSWORD) {
      this.#authorized = false;
      this.#options.onConnection({ state: "password", message });
    } else if (FINAL_CODES.has(code)) {
      this.#options.onConnection({ state: "refused", code, message });
    } else this.#retryLater();
  }

  #retryLater(): void {
    const delay = retryDelay(this.#attempt, this.#options.random);
    this.#attempt += 1;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    this.#options.onConnection(this.#lost(Date.now() + delay));
  }

  #lost(retryAt: number | null): Connection {
    return { state: "lost", retryAt, serverStopped: this.#serverStopped };
  }
}

function decodeOrLog(data: ArrayBuffer): ServerMessage | null {
  try {
    return decodeMessage(data);
  } catch (error) {
    console.error(error);
    return null;
  }
}
