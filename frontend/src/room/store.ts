/** The one store of the page: its signals, and what follows from them. */

export * from "./derived.ts";
export * from "./state.ts";
