/** Decodes the previews of a run, one at a time; only the newest waiting frame is kept. */

import type { Frame } from "./protocol.ts";

export interface Preview {
  readonly frame: Frame;
  readonly bitmap: ImageBitmap;
}

export class FrameDecoder {
  readonly #show: (preview: Preview) => void;
  readonly #acknowledge: (frame: number) => void;
  readonly #decode: (frame: Frame) => Promise<ImageBitmap>;
  #waiting: Frame | null = null;
  #busy = false;
  #closed = false;

  /** `show` owns the bitmap and closes it. Each frame is acknowledged once, when it is shown or dropped. */
  constructor(
    show: (preview: Preview) => void,
    acknowledge: (frame: number) => void,
    decode: (frame: Frame) => Promise<ImageBitmap> = decodeFrame,
  ) {
    this.#show = show;
    this.#acknowledge = acknowledge;
    this.#decode = decode;
  }

  receive(frame: Frame): void {
    if (this.#waiting !== null) this.#acknowledge(this.#waiting.frame);
    this.#waiting = frame;
    if (!this.#busy) void this.#decodeWaiting();
  }

  /** Drops what is waiting or being decoded. */
  close(): void {
    this.#closed = true;
    this.#waiting = null;
  }

  async #decodeWaiting(): Promise<void> {
    this.#busy = true;
    while (this.#waiting !== null) {
      const frame: Frame = this.#waiting;
      this.#waiting = null;
      try {
        const bitmap = await this.#decode(frame);
        if (this.#closed) bitmap.close();
        else this.#show({ frame, bitmap });
      } catch (error) {
        console.error(`Couldn't decode preview ${frame.frame}`, error);
      }
      if (!this.#closed) this.#acknowledge(frame.frame);
    }
    this.#busy = false;
  }
}

function decodeFrame(frame: Frame): Promise<ImageBitmap> {
  return createImageBitmap(new Blob([frame.data], { type: `image/${frame.format}` }));
}
