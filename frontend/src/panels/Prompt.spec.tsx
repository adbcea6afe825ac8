// @vitest-environment happy-dom

import { cleanup, render, screen } from "@testing-library/preact";
import { afterEach, expect, it } from "vitest";
import { blankDocument, openRoom } from "../room/fixtures.ts";
import { receive } from "../room/room.ts";
import * as store from "../room/store.ts";
import { PromptSection } from "./Prompt.tsx";

afterEach(cleanup);

it("says from which word on a prompt is ignored, until it is changed", () => {
  const prompt = "a koala that sits on a green hill";
  openRoom({ ...blankDocument, prompt });
  const prepared = { type: "prepared", stage: "ready", step: 1, steps: 1, seconds_left: null } as const;
  store.room.value = receive(store.room.value, { ...prepared, ignored_prompt: "green hill", unknown: false });
  const { rerender } = render(<PromptSection />);
  expect(screen.getByRole("status").textContent).toBe(
    "Too long for this model: everything from “green” on is ignored.",
  );
  store.room.value = { ...store.room.value, document: { ...blankDocument, prompt: "a koala" } };
  rerender(<PromptSection />);
  expect(screen.queryByRole("status")).toBeNull();
});
