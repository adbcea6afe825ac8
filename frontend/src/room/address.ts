/** Addresses of rooms on this server. */

/** What opens a room: its id, and the secret that a link carries in its fragment, which browsers don't send. */
export interface RoomKey {
  readonly room: string;
  readonly secret: string;
}

/** The path the server is served under: "" or, say, "/drag". */
export const base = globalThis.document?.querySelector<HTMLMetaElement>("meta[name=livedrag-base]")?.content ?? "";

export function roomAddress(key: RoomKey): string {
  return `${base}/r/${key.room}#${key.secret}`;
}

export function socketAddress(room: string): string {
  const { protocol, host } = window.location;
  return `${protocol === "https:" ? "wss" : "ws"}://${host}${base}/ws/${room}`;
}
