/** The HTTP side: making rooms, fetching pictures, loading masks, the list of samples. */

import { texts } from "./texts.ts";
import type { XY } from "./protocol.ts";

export interface Sample {
  readonly name: string;
  readonly title: string;
  readonly picture: string;
  readonly mask: string | null;
  readonly prompt: string;
  readonly drags: readonly { readonly handle: XY; readonly target: XY }[];
  readonly credit: string;
}

/** The key to a room: its id and the secret that the link carries in its fragment, which browsers don't send. */
export interface Key {
  readonly room: string;
  readonly secret: string;
}

/** What the server refused, in its words; `status` 0 where it could not be reached. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export interface NewRoom {
  readonly picture: Blob;
  readonly mask?: Blob | null;
  readonly prompt?: string;
  readonly drags?: Sample["drags"];
}

/** Largest upload that the server takes unless it is told otherwise; only to explain an upload that was cut off. */
const USUAL_LIMIT_MIB = 20;

export async function createRoom(parts: NewRoom): Promise<Key> {
  const form = new FormData();
  form.append("picture", parts.picture, parts.picture instanceof File ? parts.picture.name : "picture.png");
  if (parts.mask) form.append("mask", parts.mask, "mask.png");
  if (parts.prompt) form.append("prompt", parts.prompt);
  if (parts.drags?.length) form.append("drags", JSON.stringify(parts.drags.map(({ handle, target }) => ({ handle, target }))));
  try {
    const response = await ask("/api/rooms", { method: "POST", body: form });
    const { room, secret } = (await response.json()) as Key;
    return { room, secret };
  } catch (error) {
    const mebibytes = parts.picture.size / 2 ** 20;
    // A server that refuses a large upload may close the line before the browser has read why.
    if (error instanceof ApiError && error.status === 0 && mebibytes > USUAL_LIMIT_MIB) {
      throw new ApiError(0, texts.errors.uploadCut(mebibytes, USUAL_LIMIT_MIB));
    }
    throw error;
  }
}

/** The uploaded picture, or the last run's result, as a PNG. */
export async function fetchPicture(key: Key, which: "picture" | "result"): Promise<Blob> {
  return (await ask(`/api/rooms/${key.room}/${which}`, authorised(key))).blob();
}

/** A loaded mask; white may change. */
export async function fetchMask(key: Key, sha256: string): Promise<Blob> {
  return (await ask(`/api/rooms/${key.room}/masks/${sha256}`, authorised(key))).blob();
}

export async function putMask(key: Key, png: Blob): Promise<void> {
  const { headers } = authorised(key);
  await ask(`/api/rooms/${key.room}/mask`, {
    method: "PUT",
    headers: { ...headers, "Content-Type": "image/png" },
    body: png,
  });
}

export async function fetchSamples(): Promise<readonly Sample[]> {
  const samples: unknown = await (await ask("/api/samples")).json();
  return Array.isArray(samples) ? (samples as Sample[]) : [];
}

/** A file of the server's own, such as a sample picture. */
export async function fetchFile(path: string): Promise<Blob> {
  return (await ask(path)).blob();
}

export function socketAddress(room: string): string {
  const { protocol, host } = window.location;
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/ws/${room}`;
}

function authorised(key: Key): { readonly headers: Record<string, string> } {
  return { headers: { Authorization: `Bearer ${key.secret}` } };
}

async function ask(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError(0, texts.errors.unreachable);
  }
  if (!response.ok) throw new ApiError(response.status, await reasonOf(response));
  return response;
}

async function reasonOf(response: Response): Promise<string> {
  try {
    const body = (await response.json()) as { readonly error?: { readonly message?: string } };
    if (body.error?.message) return body.error.message;
  } catch {
    // Not one of our own errors: a proxy's page, say.
  }
  return texts.errors.status(response.status);
}
