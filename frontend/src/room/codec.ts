/** Messages to and from the bytes of the WebSocket. */

import { decode, encode } from "@msgpack/msgpack";
import type { ClientMessage, ServerMessage } from "./protocol.ts";

export class ProtocolError extends Error {}

/** Encodes a message as one MessagePack map, without its undefined fields. */
export function encodeMessage(message: ClientMessage): Uint8Array<ArrayBuffer> {
  return encode(message, { ignoreUndefined: true });
}

const SERVER_TYPES: ReadonlySet<string> = new Set<ServerMessage["type"]>([
  "welcome",
  "snapshot",
  "edited",
  "rejected",
  "started",
  "stopping",
  "ended",
  "was_reset",
  "people",
  "presences",
  "history",
  "resumed",
  "log",
  "seeked",
  "base_replaced",
  "moments",
  "engine",
  "prepared",
  "model",
  "progress",
  "points",
  "frame",
  "pong",
  "error",
]);

/**
 * Decodes a message. The server is trusted with the fields of its messages, so only the type is checked. Null for types
 * of a newer server, which this page ignores. Throws `ProtocolError` if it is not a message.
 */
export function decodeMessage(data: ArrayBuffer | Uint8Array): ServerMessage | null {
  let value: unknown;
  try {
    value = decode(data);
  } catch (error) {
    throw new ProtocolError(`not a MessagePack message: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (typeof value !== "object" || value === null || !("type" in value) || typeof value.type !== "string") {
    throw new ProtocolError(`a message must be a map with a type, got ${JSON.stringify(value)?.slice(0, 80)}`);
  }
  return SERVER_TYPES.has(value.type) ? (value as ServerMessage) : null;
}
