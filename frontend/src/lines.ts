/** What a server tells line by line, as it comes: one JSON object a line. */

/** The lines of a stream of UTF-8, however it was cut into pieces; a last one without an end counts too. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const lines = rest.split("\n");
      rest = done ? "" : (lines.pop() ?? "");
      for (const line of lines) if (line.trim() !== "") yield line;
      if (done) return;
    }
  } finally {
    // Whoever stops listening early lets the server know.
    await reader.cancel().catch(() => undefined);
  }
}
