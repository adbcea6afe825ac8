/**
 * Notices a dead connection: one on which a ping that was sent stays unanswered. Silence alone proves nothing, since
 * the timers of a hidden page fire up to a minute late, and those of a suspended one hours late.
 */

/** A timer that fires later than this, in milliseconds, fired in a page that was held up. */
const LATE = 1_000;

export class Heartbeat {
  readonly #ping: () => void;
  readonly #onDead: () => void;
  /** Milliseconds that the server has to answer a ping. */
  #patience = 0;
  #pingTimer: ReturnType<typeof setInterval> | undefined;
  /** Set while an answer is due. */
  #answerTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(ping: () => void, onDead: () => void) {
    this.#ping = ping;
    this.#onDead = onDead;
  }

  /** Pings every `interval` milliseconds; each ping may take `patience` to be answered. */
  start(interval: number, patience: number): void {
    this.stop();
    this.#patience = patience;
    this.#pingTimer = setInterval(() => {
      this.#ping();
      if (this.#answerTimer === undefined) this.expectAnswer(patience);
    }, interval);
  }

  stop(): void {
    clearInterval(this.#pingTimer);
    this.answered();
  }

  /** Pings now, and gives the server `patience` milliseconds at most. */
  check(patience: number): void {
    this.#ping();
    this.expectAnswer(Math.min(this.#patience, patience));
  }

  /** A message has come. */
  answered(): void {
    clearTimeout(this.#answerTimer);
    this.#answerTimer = undefined;
  }

  /**
   * Reports a dead connection unless `answered` is called within `patience` milliseconds. If the page was held up
   * meanwhile, the answer may be waiting behind this timer: a second ping gets its full time.
   */
  expectAnswer(patience: number, isSecond = false): void {
    this.answered();
    const due = Date.now() + patience;
    this.#answerTimer = setTimeout(() => {
      this.#answerTimer = undefined;
      if (isSecond || Date.now() - due <= LATE) {
        this.#onDead();
        return;
      }
      this.#ping();
      this.expectAnswer(patience, true);
    }, patience);
  }
}
