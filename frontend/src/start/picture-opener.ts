/** Every way to open a picture: a chosen file, one dropped or pasted, an exported room, a sample, a generated one. */

import { useEffect, useState } from "preact/hooks";
import type { RoomKey } from "../room/address.ts";
import { sendPassword } from "../room/api.ts";
import { ApiError, messageOf } from "../room/http.ts";
import { replaceRoomPicture } from "../room/files.ts";
import { makeId } from "../room/make-id.ts";
import { MAX_TITLE } from "../room/protocol.ts";
import { toast } from "../room/store.ts";
import { createRoom, createRoomFromGeneration, fetchFile, importRoom } from "./api.ts";
import type { Sample } from "./api.ts";
import * as generation from "./generation.ts";
import { Cancelled, withinLimits } from "./smaller-picture.ts";
import { texts } from "./texts.ts";

export interface PictureOpener {
  readonly busy: boolean;
  /** A file is being dragged over the page. */
  readonly dragOver: boolean;
  /** A file that was dropped or pasted in a room, where it isn't opened without a question. */
  readonly dropped: DroppedFile | null;
  /** Set while the server requires its password. */
  readonly passwordRequest: PasswordRequest | null;
  open(file: Blob): void;
  openSample(sample: Sample): void;
  openGeneration(id: string): void;
  generate(prompt: string): void;
  /** The candidates of the prompt before that are missing. */
  generateMissing(): void;
}

export interface DroppedFile {
  readonly id: string;
  readonly name: string;
  /** Whether it is an exported room. */
  readonly isRoom: boolean;
  /** Null: nothing happens. */
  readonly answer: (choice: "new" | "replace" | null) => void;
}

export interface PasswordRequest {
  readonly message: string;
  /** Sends the password and continues with what needed it. Resolves to the error, or null. */
  readonly submit: (password: string) => Promise<string | null>;
}

/** `enter` goes to a new room; `isInRoom` says whether the page is in one now. */
export function usePictureOpener(enter: (key: RoomKey) => void, isInRoom: () => boolean): PictureOpener {
  const [busy, setBusy] = useState(false);
  const [passwordRequest, run] = usePassword();
  const create = (room: () => Promise<RoomKey>) =>
    run(async () => {
      setBusy(true);
      try {
        enter(await room());
      } finally {
        setBusy(false);
      }
    });
  const [dropped, setDropped] = useState<DroppedFile | null>(null);
  const open = (file: Blob) => create(() => (isArchive(file) ? importRoom(file) : openPicture(file)));
  const take = (file: File) => {
    if (!isInRoom()) {
      open(file);
      return;
    }
    const answer = (choice: "new" | "replace" | null) => {
      // A dialog's close event comes later than the next file may.
      setDropped((now) => (now === question ? null : now));
      if (choice === "new") open(file);
      if (choice === "replace") run(async () => replaceRoomPicture(await withinLimits(file)));
    };
    const question: DroppedFile = { id: makeId(), name: file.name, isRoom: isArchive(file), answer };
    setDropped(question);
  };
  // The server recognises better than we could what is not a picture, or cannot be opened.
  const dragOver = useDroppedFiles(take);
  return {
    busy,
    dragOver,
    dropped,
    passwordRequest,
    open,
    openSample: (sample) => create(() => createSampleRoom(sample)),
    openGeneration: (id) => {
      // The device has better things to do from now on.
      generation.cancelGeneration();
      create(() => createRoomFromGeneration(id));
    },
    generate: (prompt) => run(() => generation.generate(prompt)),
    generateMissing: () => run(generation.generateMissing),
  };
}

function isArchive(file: Blob): boolean {
  return /zip/.test(file.type) || (file instanceof File && /\.zip$/i.test(file.name));
}

/** A file's name without its extension; "" for a pasted picture, which browsers call image.png. */
function titleOf(picture: Blob): string {
  const name = picture instanceof File ? picture.name : "";
  return name === "image.png" ? "" : name.replace(/\.\w+$/, "").slice(0, MAX_TITLE);
}

/** A room with a picture or, if it is a result that says how it was made, with that edit. */
async function openPicture(picture: Blob): Promise<RoomKey> {
  const room = { picture, title: titleOf(picture) };
  try {
    const created = await createRoom({ ...room, restore: true });
    if (created.restored !== null) toast("info", texts.restored[created.restored]);
    return created;
  } catch (error) {
    if (!(error instanceof ApiError) || error.reason !== "bad_metadata") throw error;
    toast("error", error.message);
    return createRoom(room);
  }
}

async function createSampleRoom(sample: Sample): Promise<RoomKey> {
  const [picture, mask] = await Promise.all([fetchFile(sample.picture), sample.mask ? fetchFile(sample.mask) : null]);
  return createRoom({ picture, title: sample.title, mask, prompt: sample.prompt, drags: sample.drags });
}

/** Runs actions; one that needs the server's password is repeated once that has been entered. */
function usePassword(): [PasswordRequest | null, (action: () => Promise<void>) => void] {
  const [request, setRequest] = useState<PasswordRequest | null>(null);
  const run = async (action: () => Promise<void>): Promise<void> => {
    try {
      await action();
    } catch (error) {
      if (error instanceof Cancelled) return;
      if (error instanceof ApiError && error.reason === "password") {
        setRequest({ message: error.message, submit: (password) => submit(password, action) });
      } else toast("error", texts.errors.notOpened(messageOf(error)));
    }
  };
  const submit = async (password: string, action: () => Promise<void>): Promise<string | null> => {
    try {
      await sendPassword(password);
    } catch (error) {
      return messageOf(error);
    }
    setRequest(null);
    void run(action);
    return null;
  };
  return [request, (action) => void run(action)];
}

/** Calls `take` with files dropped on or pasted into the page. Returns whether one is being dragged over it. */
function useDroppedFiles(take: (file: File) => void): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const takeFirst = (data: DataTransfer | null) => {
      const file = data?.files[0];
      if (file !== undefined) take(file);
    };
    const holdsFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const onDragOver = (event: DragEvent) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const onDragLeave = (event: DragEvent) => {
      if (event.relatedTarget === null) setOver(false);
    };
    const onDrop = (event: DragEvent) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      setOver(false);
      takeFirst(event.dataTransfer);
    };
    const onPaste = (event: ClipboardEvent) => takeFirst(event.clipboardData);
    window.addEventListener("dragover", onDragOver);
    window.addEventListener("dragleave", onDragLeave);
    window.addEventListener("drop", onDrop);
    window.addEventListener("paste", onPaste);
    return () => {
      window.removeEventListener("dragover", onDragOver);
      window.removeEventListener("dragleave", onDragLeave);
      window.removeEventListener("drop", onDrop);
      window.removeEventListener("paste", onPaste);
    };
  }, []);
  return over;
}
