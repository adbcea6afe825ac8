/** What may import what: the folders form layers, and no file imports itself through others. */

import { expect, it } from "vitest";

/** Each folder, and the folders it may import from. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  ui: [],
  worker: [],
  room: [],
  canvas: ["room", "ui"],
  panels: ["canvas", "room", "ui"],
  start: ["room", "ui"],
  app: ["canvas", "panels", "room", "start", "ui"],
};

const sources = import.meta.glob<string>(["../*/*.ts", "../*/*.tsx", "!../*/*.spec.*"], {
  eager: true,
  query: "?raw",
  import: "default",
});

/** "../canvas/draw.ts" as "canvas/draw.ts". */
const nameOf = (path: string) => path.replace(/^\.\.\//, "").replace(/^\.\//, "app/");
const folderOf = (file: string) => file.split("/")[0] ?? "";

function importsOf(file: string, text: string): readonly string[] {
  const here = new URL(file, "file:///");
  return [...text.matchAll(/^(?:import|export)\b[^;]*?"(\.[^"]+\.tsx?)"/gm)].map(([, path = ""]) =>
    new URL(path, here).pathname.slice(1),
  );
}

const imports = new Map(
  Object.entries(sources).map(([path, text]) => [nameOf(path), importsOf(nameOf(path), text)] as const),
);

/** The first cycle that is reachable from `file`, or null. */
function cycleFrom(file: string, path: readonly string[], done: Set<string>): readonly string[] | null {
  if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
  if (done.has(file)) return null;
  for (const next of imports.get(file) ?? []) {
    const cycle = cycleFrom(next, [...path, file], done);
    if (cycle !== null) return cycle;
  }
  done.add(file);
  return null;
}

it("finds the sources and what they import", () => {
  expect(new Set([...imports.keys()].map(folderOf))).toEqual(new Set(Object.keys(LAYERS)));
  expect(imports.get("canvas/draw.ts")).toContain("room/geometry.ts");
  expect([...imports.values()].flat().filter((file) => !imports.has(file))).toEqual([]);
});

it.each(Object.entries(LAYERS))("%s imports only from the layers below it", (folder, allowed) => {
  const wrong = [...imports]
    .filter(([file]) => folderOf(file) === folder)
    .flatMap(([file, targets]) => targets.map((target) => [file, target] as const))
    .filter(([, target]) => folderOf(target) !== folder && !allowed.includes(folderOf(target)))
    .map(([file, target]) => `${file} imports ${target}`);
  expect(wrong).toEqual([]);
});

it("keeps components out of room", () => {
  expect([...imports.keys()].filter((file) => folderOf(file) === "room" && file.endsWith(".tsx"))).toEqual([]);
});

it("has no import cycle, types included", () => {
  const done = new Set<string>();
  expect([...imports.keys()].flatMap((file) => cycleFrom(file, [], done) ?? [])).toEqual([]);
});
