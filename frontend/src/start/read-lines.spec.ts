import { expect, it } from "vitest";
import { readLines } from "./read-lines.ts";

function streamOf(...pieces: readonly Uint8Array<ArrayBuffer>[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
}

async function read(stream: ReadableStream<Uint8Array>): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of readLines(stream)) lines.push(line);
  return lines;
}

it("finds the same lines wherever the stream was cut, within a letter too", async () => {
  const bytes = new TextEncoder().encode('{"a":"ä🐻"}\n\n{"b":1}\n{"c":2}');
  for (let cut = 0; cut <= bytes.length; cut++) {
    expect(await read(streamOf(bytes.slice(0, cut), bytes.slice(cut)))).toEqual(['{"a":"ä🐻"}', '{"b":1}', '{"c":2}']);
  }
});

it("gives each line as soon as it is whole, and stops the stream when the caller stops", async () => {
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode("one\ntw")),
    cancel: () => {
      cancelled = true;
    },
  });
  for await (const line of readLines(stream)) {
    expect(line).toBe("one");
    break;
  }
  expect(cancelled).toBe(true);
});
