/** Everything the page asks of a room by HTTP: links, people, pictures, masks, downloads. */

import type { RoomKey } from "./address.ts";
import { json, request, requestBlob, requestJson } from "./http.ts";
import type { Role } from "./protocol.ts";

/** A link into a room. The server tells its secret once, to the person who creates it. */
export interface Link {
  readonly id: string;
  readonly role: Role;
  /** Seconds since the epoch; `used` is null before the first use. */
  readonly made: number;
  readonly used: number | null;
}

export type Download = "result" | "trajectory.webp" | "trajectory.mp4" | "export";

/** Sets the cookie that gives this browser access to the room. */
export async function enterRoom(key: RoomKey): Promise<void> {
  await request(`/api/rooms/${key.room}/enter`, json("POST", { secret: key.secret }));
}

/** Sets the cookie that proves the server's password. */
export async function sendPassword(password: string): Promise<void> {
  await request("/api/password", json("POST", { password }));
}

export async function deleteRoom({ room }: RoomKey): Promise<void> {
  await request(`/api/rooms/${room}`, { method: "DELETE" });
}

export async function fetchLinks({ room }: RoomKey): Promise<readonly Link[]> {
  return requestJson(`/api/rooms/${room}/links`);
}

/** The only answer that contains the link's secret. */
export async function createLink({ room }: RoomKey, role: Role): Promise<Link & { readonly secret: string }> {
  return requestJson(`/api/rooms/${room}/links`, json("POST", { role }));
}

export async function revokeLink({ room }: RoomKey, id: string): Promise<void> {
  await request(`/api/rooms/${room}/links/${encodeURIComponent(id)}`, { method: "DELETE" });
}

export async function setRole({ room }: RoomKey, person: string, role: Role): Promise<void> {
  await request(`/api/rooms/${room}/people/${encodeURIComponent(person)}`, json("PUT", { role }));
}

export async function removePerson({ room }: RoomKey, person: string): Promise<void> {
  await request(`/api/rooms/${room}/people/${encodeURIComponent(person)}`, { method: "DELETE" });
}

/** The uploaded picture, or the last run's result, as a PNG. */
export async function fetchPicture({ room }: RoomKey, which: "picture" | "result"): Promise<Blob> {
  return requestBlob(`/api/rooms/${room}/${which}`);
}

/** The thumbnail of a stored iteration. */
export async function fetchMoment({ room }: RoomKey, moment: number): Promise<Blob> {
  return requestBlob(`/api/rooms/${room}/moments/${moment}`);
}

export async function fetchDownload({ room }: RoomKey, which: Download): Promise<Blob> {
  return requestBlob(`/api/rooms/${room}/${which}`);
}

/** An uploaded mask; white may change. */
export async function fetchMask({ room }: RoomKey, sha256: string): Promise<Blob> {
  return requestBlob(`/api/rooms/${room}/masks/${sha256}`);
}

export async function uploadMask({ room }: RoomKey, png: Blob): Promise<void> {
  const headers = { "Content-Type": "image/png" };
  await request(`/api/rooms/${room}/mask`, { method: "PUT", headers, body: png });
}
