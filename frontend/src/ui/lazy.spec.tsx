// @vitest-environment happy-dom

import { cleanup, render, screen } from "@testing-library/preact";
import { afterEach, expect, it, vi } from "vitest";
import { lazy } from "./lazy.tsx";

const Greeting = ({ name }: { readonly name: string }) => <p>Hello {name}</p>;

afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

it("shows a part once it has been loaded, and loads it once", async () => {
  const load = vi.fn(() => Promise.resolve(Greeting));
  const Part = lazy(load);
  render(<Part name="you" />);
  expect(screen.queryByText("Hello you")).toBeNull();
  await screen.findByText("Hello you");
  cleanup();
  render(<Part name="again" />);
  expect(screen.getByText("Hello again")).toBeTruthy();
  expect(load).toHaveBeenCalledTimes(1);
});

it("retries as long as it is mounted", async () => {
  vi.useFakeTimers();
  const load = vi.fn(() => Promise.reject<typeof Greeting>(new Error("offline")));
  const Part = lazy(load);
  render(<Part name="you" />);
  await vi.advanceTimersByTimeAsync(100);
  expect(load).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(10_000);
  const tries = load.mock.calls.length;
  expect(tries).toBeGreaterThan(1);
  cleanup();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(load).toHaveBeenCalledTimes(tries);
});
