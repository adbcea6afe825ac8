import { describe, expect, it, vi } from "vitest";
import { FrameDecoder } from "./frame-decoder.ts";
import type { Preview } from "./frame-decoder.ts";
import type { Frame } from "./protocol.ts";

const frame = (number: number): Frame => ({
  type: "frame",
  frame: number,
  run: "r",
  stage: "dragging",
  iteration: number,
  format: "webp",
  width: 2,
  height: 2,
  time: 0,
  data: new Uint8Array(),
});

function bench() {
  const shown: number[] = [];
  const acknowledged: number[] = [];
  const closed: number[] = [];
  const decoding: { frame: number; done: (ok: boolean) => void }[] = [];
  const frames = new FrameDecoder(
    ({ frame: { frame: number } }: Preview) => shown.push(number),
    (number) => acknowledged.push(number),
    (one) =>
      new Promise((resolve, reject) => {
        decoding.push({
          frame: one.frame,
          done: (ok) =>
            ok ? resolve({ close: () => closed.push(one.frame) } as unknown as ImageBitmap) : reject(new Error("bad")),
        });
      }),
  );
  const finish = async (ok = true) => {
    decoding.at(-1)?.done(ok);
    await vi.waitFor(() => undefined);
    await Promise.resolve();
  };
  return { frames, shown, acknowledged, closed, decoding, finish };
}

describe("previews", () => {
  it("drop what a newer one overtakes before it is decoded, and acknowledge each once", async () => {
    const { frames, shown, acknowledged, decoding, finish } = bench();
    for (const number of [1, 2, 3, 4]) frames.receive(frame(number));
    expect(acknowledged).toEqual([2, 3]);
    await finish();
    await finish();
    expect(decoding.map((one) => one.frame)).toEqual([1, 4]);
    expect(shown).toEqual([1, 4]);
    expect(acknowledged.toSorted((a, b) => a - b)).toEqual([1, 2, 3, 4]);
  });

  it("acknowledge a frame that cannot be decoded, and continue", async () => {
    const quiet = vi.spyOn(console, "error").mockImplementation(() => undefined);
    const { frames, shown, acknowledged, finish } = bench();
    frames.receive(frame(1));
    await finish(false);
    frames.receive(frame(2));
    await finish();
    expect(shown).toEqual([2]);
    expect(acknowledged).toEqual([1, 2]);
    quiet.mockRestore();
  });

  it("close what is decoded after the room was left", async () => {
    const { frames, shown, acknowledged, closed, finish } = bench();
    frames.receive(frame(1));
    frames.close();
    await finish();
    expect(shown).toEqual([]);
    expect(closed).toEqual([1]);
    expect(acknowledged).toEqual([]);
  });
});
