/** The HTTP side: making rooms, fetching pictures, loading masks, the list of samples. */

import { base } from "./routes.ts";
import { texts } from "./texts.ts";
import type { Role, XY } from "./protocol.ts";

export interface Sample {
  readonly name: string;
  readonly title: string;
  readonly picture: string;
  readonly mask: string | null;
  readonly prompt: string;
  readonly drags: readonly { readonly handle: XY; readonly target: XY }[];
  readonly credit: string;
}

/** A link into a room; its secret is known to whoever made it alone, when it is made. */
export interface Link {
  readonly id: string;
  readonly role: Role;
  /** Seconds since the epoch; `used` is null before the first use. */
  readonly made: number;
  readonly used: number | null;
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
    /** The server's word for what is the matter, "" where it had none. */
    readonly reason = "",
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
  if (parts.drags?.length)
    form.append("drags", JSON.stringify(parts.drags.map(({ handle, target }) => ({ handle, target }))));
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

/** A room of a picture that was made from words. */
export async function createRoomOf(drawing: string): Promise<Key> {
  const { room, secret } = (await (await ask("/api/rooms", asJson("POST", { drawing }))).json()) as Key;
  return { room, secret };
}

/** Asks for a picture from words; a seed of null is one by chance. */
export async function askDrawing(
  prompt: string,
  seed: number | null,
): Promise<{ readonly id: string; readonly prompt: string; readonly seed: number }> {
  return (await (await ask("/api/drawings", asJson("POST", { prompt, seed }))).json()) as {
    id: string;
    prompt: string;
    seed: number;
  };
}

/** How a drawing goes, a JSON object a line, from the newest to its end. */
export async function followDrawing(id: string, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const { body } = await ask(`/api/drawings/${id}`, { signal });
  if (body === null) throw new ApiError(0, texts.errors.unreachable);
  return body;
}

export async function fetchDrawing(id: string): Promise<Blob> {
  return (await ask(`/api/drawings/${id}/picture`)).blob();
}

/** Gives up a drawing, or lets the server forget it. */
export async function forgetDrawing(id: string): Promise<void> {
  await ask(`/api/drawings/${id}`, { method: "DELETE" });
}

/** Lets this browser into a room: from then on its cookie does. */
export async function enterRoom(key: Key, password?: string): Promise<void> {
  await ask(
    `/api/rooms/${key.room}/enter`,
    asJson("POST", { secret: key.secret, ...(password === undefined ? {} : { password }) }),
  );
}

/** Says the server's password; the cookie remembers that it was right. */
export async function sayPassword(password: string): Promise<void> {
  await ask("/api/password", asJson("POST", { password }));
}

export async function fetchLinks(key: Key): Promise<readonly Link[]> {
  return (await (await ask(`/api/rooms/${key.room}/links`)).json()) as readonly Link[];
}

/** Makes a link; the only time that its secret is told. */
export async function makeLink(key: Key, role: Role): Promise<Link & { readonly secret: string }> {
  return (await (await ask(`/api/rooms/${key.room}/links`, asJson("POST", { role }))).json()) as Link & {
    readonly secret: string;
  };
}

export async function revokeLink(key: Key, id: string): Promise<void> {
  await ask(`/api/rooms/${key.room}/links/${encodeURIComponent(id)}`, { method: "DELETE" });
}

export async function setRole(key: Key, person: string, role: Role): Promise<void> {
  await ask(`/api/rooms/${key.room}/people/${encodeURIComponent(person)}`, asJson("PUT", { role }));
}

export async function removePerson(key: Key, person: string): Promise<void> {
  await ask(`/api/rooms/${key.room}/people/${encodeURIComponent(person)}`, { method: "DELETE" });
}

export async function deleteRoom(key: Key): Promise<void> {
  await ask(`/api/rooms/${key.room}`, { method: "DELETE" });
}

/** The small picture of a kept iteration. */
export async function fetchMoment(key: Key, moment: number): Promise<Blob> {
  return (await ask(`/api/rooms/${key.room}/moments/${moment}`)).blob();
}

/** What can be taken home: the result, how it came about, or the room with everything in it. */
export type Keepsake = "result" | "trajectory.webp" | "trajectory.mp4" | "export";

export async function fetchKeepsake(key: Key, which: Keepsake): Promise<Blob> {
  return (await ask(`/api/rooms/${key.room}/${which}`)).blob();
}

/** The uploaded picture, or the last run's result, as a PNG. */
export async function fetchPicture(key: Key, which: "picture" | "result"): Promise<Blob> {
  return (await ask(`/api/rooms/${key.room}/${which}`)).blob();
}

/** A loaded mask; white may change. */
export async function fetchMask(key: Key, sha256: string): Promise<Blob> {
  return (await ask(`/api/rooms/${key.room}/masks/${sha256}`)).blob();
}

export async function putMask(key: Key, png: Blob): Promise<void> {
  await ask(`/api/rooms/${key.room}/mask`, { method: "PUT", headers: { "Content-Type": "image/png" }, body: png });
}

export async function fetchSamples(): Promise<readonly Sample[]> {
  const samples: unknown = await (await ask("/api/samples")).json();
  return Array.isArray(samples) ? (samples as Sample[]) : [];
}

/** The name of the model in use; null while there is none yet. */
export async function fetchModel(): Promise<string | null> {
  return ((await (await ask("/healthz")).json()) as { readonly model: string | null }).model;
}

/** A file of the server's own, such as a sample picture. */
export async function fetchFile(path: string): Promise<Blob> {
  return (await ask(path)).blob();
}

export function socketAddress(room: string): string {
  const { protocol, host } = window.location;
  return `${protocol === "https:" ? "wss" : "ws"}://${host}${base}/ws/${room}`;
}

function asJson(method: "POST" | "PUT", value: unknown): RequestInit {
  return { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
}

async function ask(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(base + path, init);
  } catch {
    throw new ApiError(0, texts.errors.unreachable);
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const body = (await response.json()) as {
      readonly error?: { readonly message?: string; readonly reason?: string };
    };
    if (body.error?.message) return new ApiError(response.status, body.error.message, body.error.reason);
  } catch {
    // Not one of our own errors: a proxy's page, say.
  }
  return new ApiError(response.status, texts.errors.status(response.status));
}
