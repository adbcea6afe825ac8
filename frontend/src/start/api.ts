/** What the start page asks of the server: new rooms, samples, the model, pictures from a prompt. */

import type { RoomKey } from "../room/address.ts";
import { ApiError, json, request, requestBlob, requestJson } from "../room/http.ts";
import type { XY } from "../room/protocol.ts";
import { withinLimits } from "./smaller-picture.ts";
import { texts as roomTexts } from "../room/texts.ts";
import { texts } from "./texts.ts";

export interface Sample {
  readonly name: string;
  readonly title: string;
  readonly picture: string;
  readonly mask: string | null;
  readonly prompt: string;
  readonly drags: readonly { readonly handle: XY; readonly target: XY }[];
  readonly credit: string;
}

export interface NewRoom {
  readonly picture: Blob;
  readonly title?: string;
  readonly mask?: Blob | null;
  readonly prompt?: string;
  readonly drags?: Sample["drags"];
  /** If the picture is a result, restore the edit that it says it was made by. */
  readonly restore?: boolean;
}

/** What was restored of an edit: all of it, or all but the picture that it was made from. */
export type Restored = "all" | "without_picture";

export interface CreatedRoom extends RoomKey {
  readonly restored: Restored | null;
}

/** The server's default limit, to explain an upload that was cut off. */
const DEFAULT_LIMIT_MIB = 20;

/** Throws `Cancelled` if the picture is too large and the person wants no smaller copy. */
export async function createRoom(room: NewRoom): Promise<CreatedRoom> {
  const { picture: chosen, title, mask, prompt, drags, restore } = room;
  const picture = await withinLimits(chosen);
  const form = new FormData();
  form.append("picture", picture, picture instanceof File ? picture.name : "picture.png");
  if (title) form.append("title", title);
  if (restore) form.append("restore", "1");
  if (mask) form.append("mask", mask, "mask.png");
  if (prompt) form.append("prompt", prompt);
  if (drags?.length) form.append("drags", JSON.stringify(drags.map(({ handle, target }) => ({ handle, target }))));
  try {
    return await postRoom({ method: "POST", body: form });
  } catch (error) {
    const mebibytes = picture.size / 2 ** 20;
    // A server that refuses a large upload may close the connection before the browser has read why.
    if (error instanceof ApiError && error.status === 0 && mebibytes > DEFAULT_LIMIT_MIB) {
      throw new ApiError(0, texts.errors.uploadCut(mebibytes, DEFAULT_LIMIT_MIB));
    }
    throw error;
  }
}

/** A new room like the one in an exported zip. */
export async function importRoom(archive: Blob): Promise<RoomKey> {
  return postRoom({ method: "POST", headers: { "Content-Type": "application/zip" }, body: archive });
}

export async function createRoomFromGeneration(generation: string): Promise<RoomKey> {
  return postRoom(json("POST", { generation }));
}

/** Starts to generate a picture; a null seed is random. */
export async function startGeneration(
  prompt: string,
  seed: number | null,
): Promise<{ readonly id: string; readonly prompt: string; readonly seed: number }> {
  return requestJson("/api/generations", json("POST", { prompt, seed }));
}

/** The events of a generation, one JSON object per line, from the newest to its end. */
export async function followGeneration(id: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const { body } = await request(`/api/generations/${id}`, { signal });
  if (body === null) throw new ApiError(0, roomTexts.errors.unreachable);
  return body;
}

export async function fetchGeneration(id: string): Promise<Blob> {
  return requestBlob(`/api/generations/${id}/picture`);
}

/** Cancels a generation, or deletes its picture. */
export async function deleteGeneration(id: string): Promise<void> {
  await request(`/api/generations/${id}`, { method: "DELETE" });
}

export async function fetchSamples(): Promise<readonly Sample[]> {
  const samples: unknown = await requestJson("/api/samples");
  return Array.isArray(samples) ? (samples as Sample[]) : [];
}

/** The name of the model in use; null before it is loaded. */
export async function fetchModel(): Promise<string | null> {
  return (await requestJson<{ readonly model: string | null }>("/healthz")).model;
}

/** A static file of the server, such as a sample picture. */
export async function fetchFile(path: string): Promise<Blob> {
  return requestBlob(path);
}

async function postRoom(init: RequestInit): Promise<CreatedRoom> {
  const { room, secret, restored } = await requestJson<CreatedRoom>("/api/rooms", init);
  return { room, secret, restored };
}
