/** Texts of the start page and of the password form. */

export const texts = {
  landing: {
    title: "Drag things in a picture.",
    claim: "Click on something, click where it should go, and watch it move.",
    drop: "Drop a picture here",
    dropOr: "or paste one, or",
    choose: "choose a file",
    open: "Open a picture",
    openFrom: "from this device",
    formats: "PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF. Stored on this server only.",
    opening: "Opening your picture…",
    release: "Drop to open",
    samples: "Or start with a sample",
    sampleCredit: (credit: string) => `Pictures: ${credit}`,
    openSample: (title: string) => `Open the sample “${title}”`,
    animation: (title: string) => `The sample “${title}” being dragged`,
    tryThis: "Try this one",
    pause: "Pause animation",
    recent: "Recent",
    reopen: (when: string) => `Open the picture of ${when}`,
    forget: "Remove from this list",
  },

  generation: {
    title: "New picture from words",
    prompt: "Prompt",
    placeholder: "For example: a red apple",
    help: "Generated on this server. One simple thing works best.",
    model: (name: string, builtin: boolean) =>
      `Model: ${name}. ${builtin ? "Good for emoji and simple drawings" : "A Stable Diffusion model, good for photos too"}.`,
    generate: "Generate",
    cancel: "Cancel",
    retry: "Try again",
    use: "Edit this picture",
    another: "Another",
    anotherHelp: "The same prompt with a new seed",
    discard: "Discard this picture",
    details: (prompt: string, seed: number) => `“${prompt}”, seed ${seed}`,
    picture: (prompt: string) => `Picture generated from “${prompt}”`,
    unfinished: (prompt: string) => `“${prompt}”, being generated`,
    phases: {
      requested: "Requesting…",
      waiting: "Waiting in the queue",
      generating: "Generating",
      done: "Done",
      failed: "Couldn't generate the picture",
    },
    ahead: (count: number) => (count === 1 ? "1 picture ahead" : `${count} pictures ahead`),
    disconnected: "The connection was lost, and retrying didn't help.",
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
