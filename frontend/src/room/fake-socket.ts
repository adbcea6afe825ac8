/** A WebSocket without a network, for the specs to drive by hand. */

import { decode, encode } from "@msgpack/msgpack";

export class FakeWebSocket {
  static readonly OPEN = 1;
  static made: FakeWebSocket[] = [];
  readyState = 0;
  binaryType = "";
  readonly sent: Record<string, unknown>[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;

  constructor(readonly url: string) {
    FakeWebSocket.made.push(this);
  }

  send(data: Uint8Array): void {
    this.sent.push(decode(data) as Record<string, unknown>);
  }

  close(): void {
    this.readyState = 3;
  }

  opens(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  says(message: Record<string, unknown>): void {
    const bytes = encode(message);
    this.onmessage?.({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) });
  }

  closes(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

export const welcome = {
  type: "welcome",
  version: "livedrag.v1",
  room: "r",
  you: "u1",
  role: "owner",
  instance: "life",
  person: "me",
  capabilities: [],
  limits: { upload_bytes: 1, pixels: 1, drags: 64, prompt: 1000, message_bytes: 65_536, presence_rate: 30 },
  base: "",
  page: "",
  model: {
    name: "m",
    kind: "builtin",
    settings: {},
    presets: [],
    ranges: {},
    live: [],
    words: {},
    choices: {},
    unsuitable: {},
  },
  heartbeat: 3,
  deadline: 8,
  frame_credits: 2,
};

/** The socket made last. */
export function newest(): FakeWebSocket {
  const last = FakeWebSocket.made.at(-1);
  if (last === undefined) throw new Error("no socket was made");
  return last;
}
