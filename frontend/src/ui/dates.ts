/** In the reader's language, to the minute. `time` is in milliseconds since the epoch. */
export function dateAndTime(time: number): string {
  return new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
