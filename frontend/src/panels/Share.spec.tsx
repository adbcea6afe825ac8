// @vitest-environment happy-dom

import { signal } from "@preact/signals";
import { cleanup, fireEvent, render, screen, within } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Link } from "../room/api.ts";
import { blankDocument, openRoom } from "../room/fixtures.ts";
import * as store from "../room/store.ts";
import { Share } from "./Share.tsx";

/** The server's links, and the requests it got. */
let links: Link[];
let requests: string[];

const person = (name: string, role: "owner" | "editor" | "viewer") => ({ name, role, colour: "#123456", here: true });

beforeEach(() => {
  links = [{ id: "l0", role: "owner", made: 0, used: 5 }];
  requests = [];
  vi.stubGlobal("fetch", (path: string, { method = "GET", body }: { method?: string; body?: string } = {}) => {
    requests.push([method, path, body].filter(Boolean).join(" "));
    if (method === "POST") {
      const link: Link = { id: "l1", role: (JSON.parse(body ?? "{}") as Link).role, made: 0, used: null };
      links = [...links, link];
      return Promise.resolve(new Response(JSON.stringify({ ...link, secret: "s3cret" })));
    }
    if (method === "DELETE") links = links.filter(({ id }) => !path.endsWith(id));
    return Promise.resolve(new Response(JSON.stringify(method === "GET" ? links : {})));
  });
  openRoom(blankDocument, { people: { me: person("Ada", "owner"), bo: person("", "editor") } });
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
});

const show = () => render(<Share open={signal(true)} />);
const click = (name: string) => fireEvent.click(screen.getByRole("button", { name }));
const toasts = () => store.toasts.value.map(({ text }) => text);

it("lists the links with their role and last use", async () => {
  show();
  const [link] = await within(await screen.findByTestId("links")).findAllByRole("listitem");
  expect(link?.textContent).toMatch(/^Ownerlast used .*1970/);
});

it("creates a link, shows it once with its QR code, and copies it", async () => {
  const writeText = vi.fn(() => Promise.resolve());
  vi.stubGlobal("navigator", { clipboard: { writeText } });
  show();
  click("New edit link");
  const field = await screen.findByRole<HTMLInputElement>("textbox", { name: "Link" });
  expect(field.value).toBe(`${window.location.origin}/r/r#s3cret`);
  expect(screen.getByRole("img", { name: "QR code of the link" })).toBeTruthy();
  expect(screen.getByText(/Anyone with this link can join until you revoke it\.$/)).toBeTruthy();
  expect(requests).toContain('POST /api/rooms/r/links {"role":"editor"}');
  click("Copy");
  expect(writeText).toHaveBeenCalledWith(field.value);
  await vi.waitFor(() => expect(toasts()).toEqual(["Link copied"]));
});

it("says so if the browser does not let it copy", async () => {
  vi.stubGlobal("navigator", { clipboard: undefined });
  show();
  click("New view link");
  await screen.findByRole("textbox", { name: "Link" });
  click("Copy");
  await vi.waitFor(() => expect(toasts()).toEqual(["Couldn't copy the link. Select it and copy it yourself."]));
});

it("revokes a link and hides the one just created", async () => {
  show();
  click("New edit link");
  await screen.findByRole("textbox", { name: "Link" });
  fireEvent.click(await screen.findByRole("button", { name: "Revoke link: Can edit" }));
  click("Revoke");
  await vi.waitFor(() => expect(screen.queryByRole("textbox", { name: "Link" })).toBeNull());
  expect(requests).toContain("DELETE /api/rooms/r/links/l1");
  await vi.waitFor(() => expect(screen.queryByRole("button", { name: "Revoke link: Can edit" })).toBeNull());
});

it("changes roles and removes people, but not oneself", () => {
  show();
  const people = within(screen.getByTestId("people"));
  expect(people.getAllByRole("combobox")).toHaveLength(1);
  fireEvent.change(people.getByRole("combobox", { name: "Role of Anonymous" }), { target: { value: "viewer" } });
  expect(requests).toContain('PUT /api/rooms/r/people/bo {"role":"viewer"}');
  click("Remove Anonymous from the room");
  click("Remove");
  expect(requests).toContain("DELETE /api/rooms/r/people/bo");
});

it.each([
  ["Revoke link: Owner", /^Revoke this owner link\?.*a new owner link is created for you\.$/],
  ["Remove Anonymous from the room", "Remove Anonymous from the room? Their link no longer lets them in."],
] as const)("asks first, and Esc or Cancel lead back: %s", async (name, question) => {
  show();
  const button = await screen.findByRole("button", { name });
  fireEvent.click(button);
  const asked = screen.getByRole("alertdialog", { name: question });
  const cancel = within(asked).getByRole("button", { name: "Cancel" });
  await vi.waitFor(() => expect(window.document.activeElement).toBe(cancel));
  // It is the question that Esc closes, and not the dialog around it.
  expect(fireEvent.keyDown(cancel, { key: "Escape" })).toBe(false);
  expect(screen.queryByRole("alertdialog")).toBeNull();
  expect(window.document.activeElement).toBe(button);
  fireEvent.click(button);
  click("Cancel");
  expect(screen.queryByRole("alertdialog")).toBeNull();
  expect(requests.filter((request) => request.startsWith("DELETE"))).toEqual([]);
});

it("asks before it deletes the room", () => {
  show();
  click("Delete room…");
  expect(screen.getByRole("alertdialog").textContent).toContain("This can't be undone.");
  click("Cancel");
  expect(screen.queryByRole("alertdialog")).toBeNull();
  click("Delete room…");
  click("Delete for everyone");
  expect(requests).toContain("DELETE /api/rooms/r");
});

it("quotes the server if something fails", async () => {
  vi.stubGlobal("fetch", () =>
    Promise.resolve(new Response('{"error":{"message":"the room is gone","reason":"unknown"}}', { status: 404 })),
  );
  show();
  await vi.waitFor(() => expect(toasts()).toEqual(["That didn't work: the room is gone"]));
});

it("shows everyone but the owner who is here, without controls", () => {
  store.room.value = { ...store.room.value, role: "editor" };
  show();
  expect(screen.getByText("Only the owner can create links. Your own link is in the address bar.")).toBeTruthy();
  expect(screen.queryByRole("button", { name: "New edit link" })).toBeNull();
  expect(screen.queryByRole("combobox")).toBeNull();
  expect(screen.getByTestId("people").textContent).toContain("Ada (you)");
});

it("makes a new owner link before it revokes the last one", async () => {
  show();
  fireEvent.click(await screen.findByRole("button", { name: "Revoke link: Owner" }));
  click("Revoke");
  await vi.waitFor(() => expect(requests).toContain("DELETE /api/rooms/r/links/l0"));
  expect(requests.indexOf('POST /api/rooms/r/links {"role":"owner"}')).toBeGreaterThan(-1);
  expect(requests.indexOf('POST /api/rooms/r/links {"role":"owner"}')).toBeLessThan(
    requests.indexOf("DELETE /api/rooms/r/links/l0"),
  );
});
