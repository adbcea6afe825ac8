/**
 * Rooms as they were last seen, with their pictures, in this browser's database: a page that opens while the server
 * can't be reached shows them. Without a database, as in some private windows, nothing is stored.
 */

import type { Moment } from "./protocol.ts";
import type { Room } from "./room.ts";

/** What is stored of a room. The rest is volatile, or stored elsewhere (`unsent-edits.ts`). */
export type StoredRoom = Pick<
  Room,
  | "role"
  | "person"
  | "instance"
  | "capabilities"
  | "model"
  | "seq"
  | "document"
  | "people"
  | "moments"
  | "moment"
  | "iteration"
>;

interface RoomRecord {
  readonly id: string;
  /** Milliseconds, `Date.now()`. */
  readonly seen: number;
  readonly room: StoredRoom;
}

interface PictureRecord {
  /** The room's id, and the picture's digest or the moment it shows. */
  readonly id: readonly [room: string, picture: string];
  readonly blob: Blob;
}

const DATABASE = "livedrag";
const ROOMS = "rooms";
const PICTURES = "pictures";
/** The rooms that were seen longest ago are dropped. */
const MAX_ROOMS = 24;

let database: Promise<IDBDatabase | null> | null = null;

export async function storeRoom(id: string, room: Room): Promise<void> {
  const { role, person, instance, capabilities, model, seq, document, people, moments, moment, iteration } = room;
  const stored = { role, person, instance, capabilities, model, seq, document, people, moments, moment, iteration };
  await write(ROOMS, (rooms) => rooms.put({ id, seen: Date.now(), room: stored } satisfies RoomRecord));
  const all = (await read<RoomRecord[]>(ROOMS, (rooms) => rooms.getAll())) ?? [];
  const old = all.toSorted((a, b) => b.seen - a.seen).slice(MAX_ROOMS);
  await Promise.all([removeOldPictures(id, room), ...old.map((record) => removeStoredRoom(record.id))]);
}

export async function loadStoredRoom(id: string): Promise<StoredRoom | null> {
  return (await read<RoomRecord>(ROOMS, (rooms) => rooms.get(id)))?.room ?? null;
}

/** Also removes its pictures. */
export async function removeStoredRoom(id: string): Promise<void> {
  await write(ROOMS, (rooms) => rooms.delete(id));
  await write(PICTURES, (pictures) => pictures.delete(picturesOf(id)));
}

/** The name under which a moment's picture is stored; preparing the picture again restarts the ids, but not the times. */
export function momentName({ id, time }: Pick<Moment, "id" | "time">): string {
  return `${id} ${time}`;
}

/** `picture` is a digest, or names a moment. */
export async function storePicture(room: string, picture: string, blob: Blob): Promise<void> {
  await write(PICTURES, (pictures) => pictures.put({ id: [room, picture], blob } satisfies PictureRecord));
}

export async function loadStoredPicture(room: string, picture: string): Promise<Blob | null> {
  return (await read<PictureRecord>(PICTURES, (pictures) => pictures.get([room, picture])))?.blob ?? null;
}

/** Removes the pictures that the room no longer shows. */
async function removeOldPictures(id: string, { document, moments }: Room): Promise<void> {
  if (document === null) return;
  const masks = document.mask.flatMap((layer) => (layer.type === "raster" ? [layer.sha256] : []));
  const shown = new Set([document.picture.sha256, document.result?.sha256, ...masks, ...moments.map(momentName)]);
  const keys = (await read<PictureRecord["id"][]>(PICTURES, (pictures) => pictures.getAllKeys(picturesOf(id)))) ?? [];
  const old = keys.filter(([, picture]) => !shown.has(picture));
  await Promise.all(old.map((key) => write(PICTURES, (pictures) => pictures.delete([...key]))));
}

/** An array sorts behind every text. */
function picturesOf(id: string): IDBKeyRange {
  return IDBKeyRange.bound([id], [id, []]);
}

function open(): Promise<IDBDatabase | null> {
  database ??= new Promise<IDBDatabase | null>((resolve) => {
    const request = globalThis.indexedDB?.open(DATABASE, 1);
    if (request === undefined) return resolve(null);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(ROOMS, { keyPath: "id" });
      request.result.createObjectStore(PICTURES, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  });
  return database;
}

/** Undefined if there is none, or no database. */
async function read<T>(store: string, ask: (objects: IDBObjectStore) => IDBRequest): Promise<T | undefined> {
  const db = await open();
  if (db === null) return undefined;
  return new Promise((resolve) => {
    const request = ask(db.transaction(store).objectStore(store));
    request.onsuccess = () => resolve(request.result as T | undefined);
    request.onerror = () => resolve(undefined);
  });
}

/** Resolves when it is written, or could not be because the disk is full. */
async function write(store: string, change: (objects: IDBObjectStore) => IDBRequest): Promise<void> {
  const db = await open();
  if (db === null) return;
  await new Promise<void>((resolve) => {
    const transaction = db.transaction(store, "readwrite");
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => resolve();
    change(transaction.objectStore(store));
  });
}
