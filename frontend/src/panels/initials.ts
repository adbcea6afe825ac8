/** What stands for people's names in discs. */

/** One or two letters for each name, or a letter and a number; different for different names where that can be. */
export function initialsOf(names: readonly string[]): readonly string[] {
  const forms = names.map(formsOf);
  return forms.map((mine, index) => {
    const level = mine.findIndex((form, at) => forms.every((other, who) => who === index || other[at] !== form));
    return mine[level] ?? mine[1];
  });
}

/** From the shortest: "A", "AL" for Ada Lovelace and "AD" for Ada, "AA". */
function formsOf(name: string): readonly [string, string, string] {
  const words = name.trim().split(/\s+/);
  const first = [...(words[0] ?? "")];
  const last = words.length > 1 ? (words.at(-1) ?? "") : "";
  const initial = first[0] ?? "";
  const second = /^\d/.test(last) ? last.slice(0, 2) : ([...last][0] ?? first[1] ?? "");
  const end = [...(last || name)].at(-1) ?? "";
  return [initial, initial + second, initial + end].map((form) => form.toUpperCase()) as [string, string, string];
}
