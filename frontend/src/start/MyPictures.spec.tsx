// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { addRecentRoom, recentRooms } from "../room/recent-rooms.ts";
import type { RecentRoom } from "../room/recent-rooms.ts";
import { MyPictures } from "./MyPictures.tsx";

const enter = vi.fn();
const fetched = vi.fn();

beforeEach(() => {
  localStorage.clear();
  recentRooms.value = [];
  HTMLDialogElement.prototype.showModal = function showModal() {
    this.open = true;
  };
  vi.stubGlobal("fetch", (path: string, init: RequestInit) => {
    fetched(path, init.method, typeof init.body === "string" ? JSON.parse(init.body) : null);
    const created = JSON.stringify({ room: "copy", secret: "c" });
    return Promise.resolve(init.method === "POST" ? new Response(created, { status: 201 }) : new Response(null));
  });
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.clearAllMocks();
});

function manage(name: string): void {
  fireEvent.click(screen.getByRole("button", { name: `Rename, duplicate or delete ${name}` }));
}

it("remembers every room, newest first, and goes to it", () => {
  for (let number = 1; number <= 30; number++) {
    addRecentRoom({ room: `r${number}`, secret: "x" }, { title: `Picture ${number}` });
  }
  render(<MyPictures enter={enter} />);
  const links = screen.getAllByRole("link");
  expect(links).toHaveLength(30);
  expect(links[0]?.getAttribute("href")).toBe("/r/r30#x");
  fireEvent.click(links[0] as HTMLElement);
  expect(enter).toHaveBeenCalledWith({ room: "r30", secret: "x" });
  fireEvent.input(screen.getByRole("searchbox"), { target: { value: " picture 7" } });
  expect(screen.getAllByRole("link").map((link) => link.textContent)).toEqual(["Picture 7"]);
});

it("keeps links when the storage is too small for the thumbnails", () => {
  let stored = "[]";
  vi.stubGlobal("localStorage", {
    getItem: () => stored,
    setItem: (_: string, value: string) => {
      if (value.length > 400) throw new DOMException("full", "QuotaExceededError");
      stored = value;
    },
  });
  addRecentRoom({ room: "a", secret: "x" }, { thumbnail: "a".repeat(200) });
  addRecentRoom({ room: "b", secret: "y" }, { thumbnail: "b".repeat(200) });
  const rooms = JSON.parse(stored) as RecentRoom[];
  expect(rooms.map(({ room, secret, thumbnail }) => [room, secret, thumbnail.length])).toEqual([
    ["b", "y", 200],
    ["a", "x", 0],
  ]);
});

it("asks before it forgets a room", () => {
  addRecentRoom({ room: "a", secret: "x" }, { title: "Bear" });
  render(<MyPictures enter={enter} />);
  manage("Bear");
  fireEvent.click(screen.getByRole("button", { name: "Remove from list…" }));
  expect(recentRooms.value).toHaveLength(1);
  fireEvent.click(screen.getByRole("button", { name: "Remove" }));
  expect(recentRooms.value).toHaveLength(0);
});

it("renames, duplicates and deletes", async () => {
  addRecentRoom({ room: "a", secret: "x" }, { title: "Bear" });
  render(<MyPictures enter={enter} />);
  manage("Bear");
  fireEvent.change(screen.getByRole("textbox", { name: "Name" }), { target: { value: "Koala " } });
  await screen.findByRole("heading", { name: "Koala" });
  expect(fetched).toHaveBeenLastCalledWith("/api/rooms/a", "PATCH", { title: "Koala" });
  fireEvent.click(screen.getByRole("button", { name: "Duplicate" }));
  await screen.findByText("Koala (copy)");
  expect(fetched).toHaveBeenLastCalledWith("/api/rooms/a/copy", "POST", { title: "Koala (copy)" });
  expect(recentRooms.value.map(({ room, secret }) => room + secret)).toEqual(["copyc", "ax"]);
  manage("Koala");
  fireEvent.click(screen.getByRole("button", { name: "Delete…" }));
  fireEvent.click(screen.getByRole("button", { name: "Delete for everyone" }));
  await vi.waitFor(() => expect(recentRooms.value.map(({ room }) => room)).toEqual(["copy"]));
  expect(fetched).toHaveBeenLastCalledWith("/api/rooms/a", "DELETE", null);
});
