/** Every way in for a picture: a chosen file, one dropped anywhere on the page, one pasted, a sample, one from words. */

import { useEffect, useState } from "preact/hooks";
import { ApiError, createRoom, createRoomOf, fetchFile, sayPassword } from "../api.ts";
import type { Key, Sample } from "../api.ts";
import * as drawings from "../drawing.ts";
import { goTo } from "../routes.ts";
import { messageOf } from "../session.ts";
import { toast } from "../store.ts";
import { texts } from "../texts.ts";

export interface Intake {
  readonly busy: boolean;
  /** A picture hovers over the page. */
  readonly over: boolean;
  readonly veil: string;
  /** The server wants its password first; null while it does not. */
  readonly asked: Asked | null;
  open(file: Blob): void;
  openSample(sample: Sample): void;
  /** Makes a picture from words, which can then be opened. */
  draw(prompt: string): void;
  openDrawing(id: string): void;
}

export interface Asked {
  readonly message: string;
  /** Says the password and goes on with what was asked for. Answers what is wrong, or null. */
  readonly say: (password: string) => Promise<string | null>;
}

export function usePictureIntake(): Intake {
  const [busy, setBusy] = useState(false);
  const [over, setOver] = useState(false);
  const [asked, setAsked] = useState<Asked | null>(null);

  /** Does what may have to wait for the server's password. */
  async function enterWith(doing: () => Promise<void>): Promise<void> {
    try {
      await doing();
    } catch (error) {
      if (error instanceof ApiError && error.reason === "password") {
        setAsked({ message: error.message, say: (password) => sayAndGoOn(password, doing) });
        return;
      }
      toast("error", texts.errors.notOpened(messageOf(error)));
    }
  }

  async function sayAndGoOn(password: string, doing: () => Promise<void>): Promise<string | null> {
    try {
      await sayPassword(password);
    } catch (error) {
      return messageOf(error);
    }
    setAsked(null);
    void enterWith(doing);
    return null;
  }

  const make = (room: () => Promise<Key>) =>
    void enterWith(async () => {
      setBusy(true);
      try {
        goTo({ page: "room", key: await room() });
      } finally {
        setBusy(false);
      }
    });
  const open = (picture: Blob) => make(() => createRoom({ picture }));
  const openSample = (sample: Sample) =>
    make(async () => {
      const [picture, mask] = await Promise.all([
        fetchFile(sample.picture),
        sample.mask ? fetchFile(sample.mask) : null,
      ]);
      return createRoom({ picture, mask, prompt: sample.prompt, drags: sample.drags });
    });
  const draw = (prompt: string) => void enterWith(() => drawings.draw(prompt));
  const openDrawing = (id: string) => make(() => createRoomOf(id));

  useEffect(() => {
    const holdsFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const onOver = (event: DragEvent) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const onLeave = (event: DragEvent) => {
      if (event.relatedTarget === null) setOver(false);
    };
    const onDrop = (event: DragEvent) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      setOver(false);
      take(event.dataTransfer);
    };
    const onPaste = (event: ClipboardEvent) => {
      if (event.clipboardData?.files.length) take(event.clipboardData);
    };
    const take = (data: DataTransfer | null) => {
      const file = data?.files[0];
      if (file === undefined) return;
      // What is no picture the server refuses in better words; what is another kind of thing altogether we know ourselves.
      if (file.type !== "" && !file.type.startsWith("image/")) toast("error", texts.errors.noPicture);
      else open(file);
    };
    window.addEventListener("dragover", onOver);
    window.addEventListener("dragleave", onLeave);
    window.addEventListener("drop", onDrop);
    window.addEventListener("paste", onPaste);
    return () => {
      window.removeEventListener("dragover", onOver);
      window.removeEventListener("dragleave", onLeave);
      window.removeEventListener("drop", onDrop);
      window.removeEventListener("paste", onPaste);
    };
  }, []);

  return { busy, over, asked, veil: texts.landing.dropNow, open, openSample, draw, openDrawing };
}
