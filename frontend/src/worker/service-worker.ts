/**
 * The service worker: stores the page's own files, so that it opens while the server can't be reached. Rooms are stored
 * by the page itself (`room/stored-rooms.ts`); requests to the API pass by here untouched.
 */

/** The page's files, relative to this one; the build fills them in (`vite.config.ts`). */
declare const __PAGE_FILES__: readonly string[];

// TypeScript has the types of pages or of workers, not both in one project.
interface WorkerEvent extends Event {
  waitUntil(done: Promise<unknown>): void;
}
interface FetchEvent extends WorkerEvent {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}
const worker = self as unknown as {
  readonly location: Location;
  skipWaiting(): Promise<void>;
  addEventListener(type: "install" | "activate", listener: (event: WorkerEvent) => void): void;
  addEventListener(type: "fetch", listener: (event: FetchEvent) => void): void;
};

/** Answers of a proxy whose server is down. */
const UNAVAILABLE: ReadonlySet<number> = new Set([502, 503, 504]);

/** The start page's address, which serves the page of every room. */
const page = new URL("./", worker.location.href).href;
const files: ReadonlySet<string> = new Set(__PAGE_FILES__.map((file) => new URL(file, page).href));
/** Servers below different paths of a host share its caches. */
const cachePrefix = `livedrag ${page} `;
const cacheName = cachePrefix + __PAGE_FILES__.join(" ");

worker.addEventListener("install", (event) => event.waitUntil(install()));
worker.addEventListener("activate", (event) => event.waitUntil(removeOldCaches()));
worker.addEventListener("fetch", (event) => {
  const { method, mode, url } = event.request;
  if (method !== "GET") return;
  if (mode === "navigate" && isPage(url)) event.respondWith(openPage(event.request));
  else if (files.has(url)) event.respondWith(openFile(event.request));
});

async function install(): Promise<void> {
  const cache = await caches.open(cacheName);
  await cache.addAll([page, ...files]);
  await worker.skipWaiting();
}

async function removeOldCaches(): Promise<void> {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(cachePrefix) && name !== cacheName);
  await Promise.all(old.map((name) => caches.delete(name)));
}

function isPage(url: string): boolean {
  const path = url.startsWith(page) ? url.slice(page.length) : null;
  return path !== null && /^(r\/[\w-]+\/?)?([?#]|$)/.test(path);
}

/** From the server, which may have a newer page; from the cache while it is out of reach. */
async function openPage(request: Request): Promise<Response> {
  const stored = async () => (await caches.open(cacheName)).match(page);
  try {
    const response = await fetch(request);
    return UNAVAILABLE.has(response.status) ? ((await stored()) ?? response) : response;
  } catch (error) {
    const response = await stored();
    if (response === undefined) throw error;
    return response;
  }
}

/** A file's name changes with its content, so the stored one is right. */
async function openFile(request: Request): Promise<Response> {
  return (await (await caches.open(cacheName)).match(request.url)) ?? fetch(request);
}
