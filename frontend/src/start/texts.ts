/** Texts of the start page and of the password form. */

import type { Size } from "../room/geometry.ts";
import type { TooLarge } from "./smaller-picture.ts";

/** To tenths below ten. */
const short = (value: number): string => (value < 9.95 ? value.toFixed(1) : Math.round(value).toString());
const megapixels = (pixels: number) => short(pixels / 1e6);
const mebibytes = (bytes: number) => short(bytes / 2 ** 20);

export const texts = {
  landing: {
    title: "Drag things in a picture.",
    claim: "Click on something, click where it should go, and watch it move.",
    claimTouch: "Tap something, tap where it should go, and watch it move.",
    drop: "Drop a picture here",
    dropOr: "or paste one, or",
    choose: "choose a file",
    open: "Open a picture",
    openFrom: "from this device",
    formats: "PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF, or an exported room (ZIP). Stored on this server only.",
    opening: "Opening your picture…",
    release: "Drop to open",
    samples: "Or start with a sample",
    sampleCredit: (credit: string) => `Pictures: ${credit}`,
    openSample: (title: string) => `Open the sample “${title}”`,
    animation: (title: string) => `The sample “${title}” being dragged`,
    tryThis: "Try this one",
    pause: "Pause animation",
  },

  pictures: {
    title: "My pictures",
    search: "Search by name",
    found: (count: number) => (count === 0 ? "No picture has this name." : `${count} found`),
    unnamed: (date: string) => `Untitled, ${date}`,
    opened: (when: string) => `Last opened ${when}`,
    manage: (name: string) => `Rename, duplicate or delete ${name}`,
    name: "Name",
    duplicate: "Duplicate",
    duplicateHelp: "A new room with the same picture, points and result. No need to learn the picture again.",
    copyOf: (name: string) => `${name.slice(0, 92)} (copy)`,
    duplicated: (name: string) => `Created “${name}”`,
    forget: "Remove from list…",
    forgetQuestion: "Remove this picture from the list? Without its link you can't open it again.",
    forgetConfirm: "Remove",
    delete: "Delete…",
    deleteQuestion: "Delete this room and everything in it, for everyone? This can't be undone.",
    deleteConfirm: "Delete for everyone",
    failed: (message: string) => `That didn't work: ${message}`,
  },

  generation: {
    title: "New picture from words",
    prompt: "Prompt",
    placeholder: "For example: a red apple",
    help: "Four to choose from, generated on this server. One simple thing works best.",
    model: (name: string, builtin: boolean) =>
      `Model: ${name}. ${builtin ? "Good for emoji and simple drawings" : "A Stable Diffusion model, good for photos too"}.`,
    generate: "Generate",
    suggestions: "Suggestions",
    /** What the built-in model draws well: samples of the gallery were generated from these. */
    subjects: [
      ["Apple", "a red apple on a white background"],
      ["Heart", "a pink heart on a white background"],
      ["Cactus", "a cactus on a beige background"],
      ["Panda", "a panda face on a green background"],
      ["Car", "a car on a blue background"],
      ["Gift", "a wrapped gift on a pink background"],
    ],
    cancel: "Cancel",
    retry: "Try again",
    use: "Edit this picture",
    more: (count: number) => (count === 1 ? "1 more" : `${count} more`),
    moreHelp: "The same prompt with new seeds, to choose from",
    anew: "Start over",
    anewHelp: "Discard these, and generate the same prompt with new seeds",
    candidates: "Candidates",
    candidate: (number: number, seed: number) => `Candidate ${number}, seed ${seed}`,
    discard: "Discard these pictures",
    details: (prompt: string, seed: number) => `“${prompt}”, seed ${seed}`,
    picture: (prompt: string) => `Picture generated from “${prompt}”`,
    unfinished: (prompt: string) => `“${prompt}”, being generated`,
    phases: {
      requested: "Requesting…",
      waiting: "Waiting in the queue",
      generating: "Generating",
      done: "Generated",
      failed: "Couldn't generate the picture",
    },
    generatedOf: (count: number, wanted: number) => `Generated ${count} of ${wanted}`,
    ahead: (count: number) => (count === 1 ? "1 picture ahead" : `${count} pictures ahead`),
    disconnected: "The connection was lost, and retrying didn't help.",
  },

  smaller: {
    title: "This picture is too large",
    question: ({ size, bytes, limits }: TooLarge) =>
      `It has ${megapixels(size.width * size.height)} megapixels and ${mebibytes(bytes)} MiB. This server takes up to ${megapixels(limits.pixels)} megapixels and ${mebibytes(limits.upload_bytes)} MiB.`,
    accept: ({ width, height }: Size) => `Open a smaller copy (${width} × ${height})`,
  },

  restored: {
    all: "Restored the picture, points, mask, prompt and settings of this result.",
    without_picture:
      "Restored the points, mask, prompt and settings of this result. The original isn't in a room that you have joined, so they are placed on the result itself.",
  },

  password: {
    title: "This server requires a password",
    label: "Password",
    submit: "Continue",
  },

  errors: {
    notOpened: (message: string) => `Couldn't open the picture: ${message}`,
    uploadCut: (mebibytes: number, limit: number) =>
      `The upload was cut off. The picture is ${mebibytes.toFixed(0)} MiB, and the server usually accepts up to ${limit} MiB.`,
    samples: "Couldn't load the samples",
  },
} as const;
