/**
 * Previews from the wire to a bitmap: the latest wins. One is decoded at a time; what arrives meanwhile replaces what is
 * waiting, which is dropped before it is decoded. Each is acknowledged once, when shown or dropped.
 */

import type { Frame } from "./protocol.ts";

export interface Preview {
  readonly frame: Frame;
  readonly bitmap: ImageBitmap;
}

export interface Frames {
  receive(frame: Frame): void;
  /** Forgets what is waiting or being decoded. */
  close(): void;
}

/** `show` becomes the owner of the bitmap and closes it. */
export function decodeFrames(
  show: (preview: Preview) => void,
  acknowledge: (frame: number) => void,
  decode: (frame: Frame) => Promise<ImageBitmap> = (frame) =>
    createImageBitmap(new Blob([frame.data], { type: `image/${frame.format}` })),
): Frames {
  let waiting: Frame | null = null;
  let busy = false;
  let closed = false;

  async function work(): Promise<void> {
    busy = true;
    while (waiting !== null) {
      const frame: Frame = waiting;
      waiting = null;
      try {
        const bitmap = await decode(frame);
        if (closed) bitmap.close();
        else show({ frame, bitmap });
      } catch (error) {
        console.error(`preview ${frame.frame} cannot be decoded`, error);
      }
      if (!closed) acknowledge(frame.frame);
    }
    busy = false;
  }

  return {
    receive(frame) {
      if (waiting !== null) acknowledge(waiting.frame);
      waiting = frame;
      if (!busy) void work();
    },
    close() {
      closed = true;
      waiting = null;
    },
  };
}
