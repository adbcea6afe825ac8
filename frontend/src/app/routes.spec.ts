import { expect, it } from "vitest";
import { roomAddress } from "../room/address.ts";
import { parseRoute } from "./routes.ts";

it("reads a room's address and writes it again", () => {
  const key = { room: "a1b2", secret: "s-3_x" };
  expect(roomAddress(key)).toBe("/r/a1b2#s-3_x");
  expect(parseRoute("/r/a1b2", "#s-3_x")).toEqual({ page: "room", key });
});

it("reads addresses below a path of the server's", () => {
  expect(parseRoute("/drag/r/a1b2", "#x", "/drag")).toEqual({ page: "room", key: { room: "a1b2", secret: "x" } });
  expect(parseRoute("/drag/", "", "/drag")).toEqual({ page: "landing" });
});

it("takes a link without its secret as a room without its key, and anything else as the landing", () => {
  expect(parseRoute("/r/a1b2/", "")).toEqual({ page: "room", key: { room: "a1b2", secret: "" } });
  expect(parseRoute("/", "")).toEqual({ page: "landing" });
  expect(parseRoute("/r/", "#x")).toEqual({ page: "landing" });
});
