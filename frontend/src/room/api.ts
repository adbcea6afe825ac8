/** Everything the page asks of a room by HTTP: links, people, pictures, masks, downloads. */

import { roomRequest } from "./access.ts";
import type { RoomKey } from "./address.ts";
import { json, request, requestJson } from "./http.ts";
import type { ModelCatalog, Role } from "./protocol.ts";

/** A link into a room. The server tells its secret once, to the person who creates it. */
export interface Link {
  readonly id: string;
  readonly role: Role;
  /** Seconds since the epoch; `used` is null before the first use. */
  readonly made: number;
  readonly used: number | null;
}

export type Download = "result" | "trajectory.webp" | "trajectory.mp4" | "numbers.csv" | "numbers.json" | "export";

/** Sets the cookie that proves the server's password. */
export async function sendPassword(password: string): Promise<void> {
  await request("/api/password", json("POST", { password }));
}

/** What rooms may edit with. */
export async function fetchModels(): Promise<ModelCatalog> {
  return requestJson("/api/models");
}

export async function deleteRoom(key: RoomKey): Promise<void> {
  await roomRequest(key, "", { method: "DELETE" });
}

export async function renameRoom(key: RoomKey, title: string): Promise<void> {
  await roomRequest(key, "", json("PATCH", { title }));
}

/** A new room like this one, with its preparation. */
export async function copyRoom(key: RoomKey, title: string): Promise<RoomKey> {
  const { room, secret } = (await (await roomRequest(key, "/copy", json("POST", { title }))).json()) as RoomKey;
  return { room, secret };
}

export async function fetchLinks(key: RoomKey): Promise<readonly Link[]> {
  return (await roomRequest(key, "/links")).json();
}

/** The only answer that contains the link's secret. */
export async function createLink(key: RoomKey, role: Role): Promise<Link & { readonly secret: string }> {
  return (await roomRequest(key, "/links", json("POST", { role }))).json();
}

export async function revokeLink(key: RoomKey, id: string): Promise<void> {
  await roomRequest(key, `/links/${encodeURIComponent(id)}`, { method: "DELETE" });
}

export async function setRole(key: RoomKey, person: string, role: Role): Promise<void> {
  await roomRequest(key, `/people/${encodeURIComponent(person)}`, json("PUT", { role }));
}

export async function removePerson(key: RoomKey, person: string): Promise<void> {
  await roomRequest(key, `/people/${encodeURIComponent(person)}`, { method: "DELETE" });
}

/** The uploaded picture, or the last run's result, as a PNG with its digest, "" if a proxy has removed that. */
export async function fetchPicture(
  key: RoomKey,
  which: "picture" | "result",
): Promise<{ readonly blob: Blob; readonly sha256: string }> {
  const response = await roomRequest(key, `/${which}`);
  const sha256 = /[0-9a-f]{64}/.exec(response.headers.get("ETag") ?? "")?.[0] ?? "";
  return { blob: await response.blob(), sha256 };
}

/** The thumbnail of a stored iteration. */
export async function fetchMoment(key: RoomKey, moment: number): Promise<Blob> {
  return (await roomRequest(key, `/moments/${moment}`)).blob();
}

export async function fetchDownload(key: RoomKey, which: Download): Promise<Blob> {
  return (await roomRequest(key, `/${which}`)).blob();
}

/** An uploaded mask; white may change. */
export async function fetchMask(key: RoomKey, sha256: string): Promise<Blob> {
  return (await roomRequest(key, `/masks/${sha256}`)).blob();
}

/** Makes the quick preview, at full size, the room's result. */
export async function keepQuickPreview(key: RoomKey): Promise<void> {
  await roomRequest(key, "/quick-preview", { method: "POST" });
}

/** Edits this picture, in any format that the server reads, instead of the room's. */
export async function replacePicture(key: RoomKey, picture: Blob): Promise<void> {
  await roomRequest(key, "/picture", { method: "PUT", body: picture });
}

/** Takes any format that the server reads; `fit` scales a mask of another size. */
export async function uploadMask(key: RoomKey, file: Blob, fit: boolean): Promise<void> {
  await roomRequest(key, fit ? "/mask?fit" : "/mask", { method: "PUT", body: file });
}
