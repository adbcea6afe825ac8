// @vitest-environment happy-dom

import { cleanup, fireEvent, render, screen } from "@testing-library/preact";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openRoom } from "../room/fixtures.ts";
import type { Prepared } from "../room/protocol.ts";
import { receive } from "../room/room.ts";
import * as store from "../room/store.ts";
import { UnknownPictureNote } from "./Model.tsx";

beforeEach(() => openRoom());
afterEach(cleanup);

function prepared(stage: Prepared["stage"], unknown: boolean): void {
  const message: Prepared = {
    type: "prepared",
    stage,
    step: 1,
    steps: 1,
    seconds_left: null,
    ignored_prompt: "",
    unknown,
  };
  store.room.value = receive(store.room.value, message);
  cleanup();
  render(<UnknownPictureNote />);
}

const note = () => screen.queryByTestId("unknown-note");

it("says that the model does not know the picture, once it is prepared", () => {
  prepared("fitting", false);
  expect(note()).toBeNull();
  prepared("ready", true);
  expect(note()?.textContent).toContain("doesn’t know pictures like this one");
  prepared("fitting", false); // again, for another prompt
  expect(note()).not.toBeNull();
  prepared("ready", false);
  expect(note()).toBeNull();
});

it("can be dismissed, and is not shown to people who only look", () => {
  prepared("ready", true);
  fireEvent.click(screen.getByRole("button", { name: "Got it" }));
  expect(note()).toBeNull();
  store.room.value = { ...store.room.value, role: "viewer" };
  prepared("ready", true);
  expect(note()).toBeNull();
});
