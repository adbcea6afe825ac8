// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen, within } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { setCurrentSession } from "../room/current-session.ts";
import type { Session } from "../room/current-session.ts";
import { bitmap, oneDrag, openRoom, pendingRequests } from "../room/fixtures.ts";
import type { Moment } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { Timeline } from "./Timeline.tsx";

const moment = (id: number, parent: number | null, iteration: number): Moment => ({
  id,
  parent,
  iteration,
  time: 0,
  thumbnail: true,
});
/** 1 - 2 - 3, and 4 from 2. */
const tree = [moment(1, null, 0), moment(2, 1, 5), moment(3, 2, 10), moment(4, 2, 6)];

function show(moments: readonly Moment[], current: number | null, role: "owner" | "viewer" = "owner"): void {
  openRoom(oneDrag, { moments, moment: current, role });
  const session = {
    key: { room: "r", secret: "s" },
    synced: false,
    thumbnails: new Map(moments.map(({ id, time }) => [`${id} ${time}`, Promise.resolve(bitmap)])),
  };
  setCurrentSession(session as unknown as Session);
  render(<Timeline />);
}

beforeEach(() => {
  vi.stubGlobal("localStorage", undefined);
});

afterEach(() => {
  cleanup();
  setCurrentSession(null);
  vi.unstubAllGlobals();
});

const scrubber = () => screen.getByRole<HTMLInputElement>("slider", { name: "Browse iterations" });
const scrubTo = (index: number) => fireEvent.input(scrubber(), { target: { value: String(index) } });

it("appears with the second stored iteration", () => {
  show(tree.slice(0, 1), 1);
  expect(screen.queryByTestId("timeline")).toBeNull();
  cleanup();
  show(tree.slice(0, 2), 2);
  expect(screen.getByTestId("timeline").dataset.moments).toBe("2");
});

it("shows the iteration that is scrubbed to, to this person alone", async () => {
  show(tree.slice(0, 3), 3);
  expect(scrubber().getAttribute("aria-valuetext")).toBe("Iteration 10");
  scrubTo(1);
  await vi.waitFor(() => expect(store.scrubbed.value?.id).toBe(2));
  expect(store.showing.value).toBe("moment");
  await vi.waitFor(() => expect(scrubber().getAttribute("aria-valuetext")).toBe("Iteration 5"));
  expect(pendingRequests()).toEqual([]);
});

it("returns to the scrubbed step for everyone, or back to the current one", async () => {
  show(tree.slice(0, 3), 3);
  scrubTo(0);
  fireEvent.click(await screen.findByRole("button", { name: "Return to this step" }));
  expect(pendingRequests()).toMatchObject([{ type: "seek", moment: 1 }]);
  fireEvent.click(screen.getByRole("button", { name: "Back to the current step" }));
  expect(store.scrubbed.value).toBeNull();
});

it("lets viewers look, but not return", async () => {
  show(tree.slice(0, 3), 3, "viewer");
  scrubTo(0);
  expect(await screen.findByRole("button", { name: "Back to the current step" })).toBeTruthy();
  expect(screen.queryByRole("button", { name: "Return to this step" })).toBeNull();
});

it("plays from the start to the end and stops there", async () => {
  show(tree.slice(0, 3), 3);
  const seen: string[] = [];
  const stop = store.scrubbed.subscribe((one) => one !== null && seen.push(String(one.id)));
  fireEvent.click(screen.getByRole("button", { name: "Play" }));
  await vi.waitFor(() => expect(store.scrubbed.value?.id).toBe(3), { timeout: 3_000 });
  stop();
  expect(seen).toEqual(["1", "2", "3"]);
  expect(await screen.findByRole("button", { name: "Play" })).toBeTruthy();
});

it("lists branches by where they begin and end, and goes to their ends", () => {
  show(tree, 4);
  const branches = within(screen.getByTestId("branches")).getAllByRole("button", { name: /Return to its end/ });
  expect(branches.map((button) => button.getAttribute("aria-label"))).toEqual([
    "Branch 1: from the start to iteration 10. Return to its end",
    "Branch 2: from iteration 5 to iteration 6. Return to its end. Current branch",
  ]);
  expect(branches.map((button) => button.getAttribute("aria-current"))).toEqual(["false", "true"]);
  const [first] = branches;
  if (first) fireEvent.click(first);
  expect(pendingRequests()).toMatchObject([{ type: "seek", moment: 3 }]);
});

it("names branches and leaves them out of the list", () => {
  show(tree, 4);
  fireEvent.change(screen.getByRole("textbox", { name: "Name of Branch 1" }), { target: { value: " chin up " } });
  expect(pendingRequests()).toMatchObject([{ op: { type: "mark_branch", moment: 3, mark: { name: "chin up" } } }]);
  expect(screen.getByRole("button", { name: "Remove Branch 2 from the list" })).toHaveProperty("disabled", true);
  fireEvent.click(screen.getByRole("button", { name: "Remove chin up from the list" }));
  expect(pendingRequests().at(-1)).toMatchObject({ op: { moment: 3, mark: { name: "chin up", removed: true } } });
  expect(screen.queryByTestId("branches")).toBeNull();
});
