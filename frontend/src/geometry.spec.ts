import { expect, test } from "vitest";
test("a", () => expect(1).toBe(1));
