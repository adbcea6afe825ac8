import { decode, encode } from "@msgpack/msgpack";
import { describe, expect, it } from "vitest";
import { ProtocolError, decodeMessage, encodeMessage } from "./codec.ts";
import { makeId } from "./make-id.ts";

describe("what clients send", () => {
  it("is one MessagePack map named by its type", () => {
    const edit = {
      type: "edit",
      op_id: "o1",
      base: 4,
      op: { type: "move_drag", id: "d1", target: [12.5, 3] },
    } as const;
    expect(decode(encodeMessage(edit))).toEqual(edit);
  });

  it("leaves out what is not said, as the server knows no undefined", () => {
    const bytes = encodeMessage({ type: "hello", version: "livedrag.v1", secret: "s", name: undefined } as never);
    expect(decode(bytes)).toEqual({ type: "hello", version: "livedrag.v1", secret: "s" });
  });
});

describe("what the server sends", () => {
  it("keeps a frame's bytes as bytes", () => {
    const frame = decodeMessage(encode({ type: "frame", frame: 7, data: new Uint8Array([1, 2, 255]) }));
    expect(frame?.type === "frame" && frame.data).toEqual(new Uint8Array([1, 2, 255]));
  });

  it("is passed over where a newer server says more", () => {
    expect(decodeMessage(encode({ type: "hologram" }))).toBeNull();
  });

  it("has to be a message at all", () => {
    for (const bytes of [
      new Uint8Array([0xc1]),
      new Uint8Array(),
      encode("hello"),
      encode({ kind: "frame" }),
      encode([1]),
    ]) {
      expect(() => decodeMessage(bytes)).toThrow(ProtocolError);
    }
  });
});

it("makes ids that the server takes", () => {
  const ids = new Set(Array.from({ length: 100 }, makeId));
  expect(ids.size).toBe(100);
  for (const id of ids) expect(id).toMatch(/^[A-Za-z0-9_.:-]{1,63}$/);
});
