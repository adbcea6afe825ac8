/** Every text that people read, in one place. */

import type { Deed } from "./activity.ts";
import type { Keepsake } from "./api.ts";
import type { Operation, Outcome, Request, Role, Stage } from "./protocol.ts";

const px = (value: number): string => (value < 9.95 ? value.toFixed(1) : Math.round(value).toString());

const GOES_ON = "Drag goes on from here";

export const texts = {
  name: "livedrag",
  px: (value: number) => `${px(value)} px`,

  landing: {
    title: "Take hold of a picture.",
    claim: "Put a point on something, say where it should go, and watch it move.",
    drop: "Drop a picture here",
    open: "Open a picture",
    dropDetail: "or paste one, or",
    choose: "choose a file",
    openDetail: "from this device",
    limits: "PNG, JPEG or WebP. It stays on this server.",
    uploading: "Opening your picture…",
    samples: "Or start from a sample",
    sampleCredit: (credit: string) => `Pictures: ${credit}`,
    sample: (title: string) => `Start from the sample “${title}”`,
    showing: (title: string) => `The sample “${title}” being dragged`,
    tryThis: "Try this one",
    holdStill: "Hold still",
    recent: "Recent",
    reopen: (when: string) => `Go on with the picture of ${when}`,
    forget: "Remove from this list",
    dropNow: "Let go to open it",
  },

  drawing: {
    title: "New picture from words",
    words: "What should it show?",
    placeholder: "A red apple, for example",
    help: "Drawn on this server. One plain thing works best.",
    model: (name: string, builtin: boolean) =>
      `The model here: ${name}. ${builtin ? "Good for emoji and simple drawings" : "A Stable Diffusion model: good for photographs too"}.`,
    draw: "Draw",
    cancel: "Cancel",
    again: "Try again",
    use: "Drag it",
    another: "Another",
    anotherHelp: "The same words, drawn anew",
    putAway: "Put the drawing away",
    drawn: (prompt: string, seed: number) => `“${prompt}”, seed ${seed}`,
    picture: (prompt: string) => `Drawn from the words “${prompt}”`,
    appearing: (prompt: string) => `“${prompt}”, being drawn`,
    phases: {
      asking: "Asking…",
      waiting: "Waiting for a turn",
      drawing: "Drawing",
      done: "There it is",
      failed: "That did not work",
    },
    before: (before: number) => (before === 1 ? "one before you" : `${before} before you`),
    lost: "The connection broke off, and again each time that it was tried.",
  },

  editor: {
    title: "livedrag: edit a picture",
    home: "livedrag: start page",
    newPicture: "New picture",
    shortcuts: "Keyboard shortcuts",
    canvas: "Picture",
    canvasHelp:
      "Press P for a crosshair that the arrow keys move, then Enter to put a handle down and Enter again for its target. Question mark lists all keys.",
    opening: "Opening the picture…",
    drag: "Drag",
    stop: "Stop",
    compare: "Hold to compare",
    compareShort: "Compare",
    compareHelp: "Hold to see the original (C)",
    split: "Split view",
    splitShort: "Split",
    splitHelp: "Original and result side by side (X)",
    reset: "Reset",
    resetHelp: "Back to the uploaded picture; the points stay",
    tools: "Tools",
    points: "Points",
    paint: "Paint",
    erase: "Erase",
    hand: "Move the view",
    brush: "Brush size",
    softness: "Softness of the edge",
    softnessValue: (softness: number) => (softness === 0 ? "hard" : `${Math.round(softness * 100)} % soft`),
    actions: "Run",
    panel: "Settings of this picture",
  },

  zoom: {
    title: "Zoom",
    in: "Zoom in",
    out: "Zoom out",
    fit: "Fit the picture",
    actual: (percent: number) => `${percent} %. Show actual size`,
    actualHelp: "Actual size",
  },

  split: {
    title: "Split between original and result",
    value: (percent: number) => `${percent} % original`,
    before: "Original",
    guess: "Guess",
  },

  theme: {
    title: "Colours",
    choices: { system: "As the system", light: "Light", dark: "Dark" },
  },

  menu: { title: "More" },

  chart: {
    title: "Pixels left to go, by iteration",
    spoken: (n: number, from: number, to: number) => `Point ${n} from ${px(from)} to ${px(to)} px`,
    axis: (iteration: number) => `iteration ${iteration}`,
  },

  hints: {
    first: "Click on something you want to move",
    firstTouch: "Tap something you want to move",
    second: "Now click where it should go",
    secondTouch: "Now tap where it should go",
    cancel: "Cancel",
    paint: "Paint over what may change; the rest stays as it is",
    erase: "Erase from the region that may change",
    crosshair: "Arrow keys move the crosshair, Enter puts the handle down",
    crosshairTarget: "Arrow keys move the crosshair, Enter puts the target down",
    crosshairDab: "Arrow keys move the brush, Enter dabs",
    original: "Original",
    preview: "Live preview",
    result: "Result",
    guess: "Guess – press Drag for the real thing",
    moment: (iteration: number) => `Iteration ${iteration}`,
    guessRunning: "Guess – the real thing is on its way",
    guessViewer: "Guess – nothing has been dragged yet",
  },

  points: {
    title: "Points",
    none: "None yet. Click on the picture where something is, then where it should go; or press and drag.",
    noneYet: "None yet.",
    noneKeys: "From the keyboard: press P.",
    handle: (n: number, x: number, y: number) =>
      `Point ${n}, handle at ${Math.round(x)}, ${Math.round(y)}. Arrow keys move it.`,
    target: (n: number, x: number, y: number) =>
      `Point ${n}, target at ${Math.round(x)}, ${Math.round(y)}. Arrow keys move it.`,
    remove: (n: number) => `Remove point ${n}`,
    duplicate: (n: number) => `Duplicate point ${n}`,
    coordinates: { handle: "From", target: "To", x: "x", y: "y" },
    coordinate: (n: number, end: "handle" | "target", axis: "x" | "y") => `Point ${n}, ${end}, ${axis} in pixels`,
    waiting: "not sent yet",
    arrived: "there",
    left: (distance: number) => `${px(distance)} px to go`,
    place: (x: number, y: number) => `${Math.round(x)}, ${Math.round(y)}`,
  },

  mask: {
    title: "What may change",
    all: "Everything. Paint a region, and the rest stays exactly as it is.",
    some: "Only the painted region; the rest stays as it is.",
    load: "Load mask…",
    clear: "Clear",
    invert: "Invert",
    show: "Show",
    hide: "Hide",
    paint: "Paint a region",
    loaded: "Mask loaded",
  },

  prompt: {
    title: "What it shows",
    placeholder: "A teddy bear, for example. Optional.",
    busy: "Can be changed once the run has ended.",
  },

  settings: {
    title: "How it drags",
    advanced: "Advanced",
    presets: {
      "": ["As the model likes it", "Tuned for the model in use; the best start."],
      official: ["Official", "The authors’ later code: rendering looks back at your picture."],
      paper: ["Paper", "The paper to the letter. Slower to prepare."],
    } as Readonly<Record<string, readonly [name: string, help: string]>>,
    groups: { drag: "Dragging", picture: "Getting to know the picture", show: "Showing" },
    names: {
      warp_share: [
        "Warp first",
        "",
        "How much of the way content is bent there, before the model pulls it on: 0 none, as published, 1 all.",
      ],
      latent_lr: ["Pace", "η", "How far the picture moves in one iteration. Too fast tears it."],
      max_iterations: ["Iterations at most", "", "A run ends there, even when points are still on their way."],
      mask_weight: ["Mask weight", "λ", "How firmly everything outside the painted region is held."],
      arrival_distance: ["Near enough", "", "A point this close to its target counts as there."],
      supervision_radius: ["Grip", "r₁", "How large a patch around each handle is pulled along."],
      tracking_radius: ["Search", "r₂", "How far around each handle its content is looked for."],
      lora_steps: ["Steps", "", "How long the model looks at your picture first. Fewer is quicker, and less like it."],
      lora_rank: ["Rank", "r", "How much of your picture the model can take in."],
      lora_lr: ["Learning rate", "", "How eagerly it takes your picture in."],
      lora_batch: ["Rows a step", "", "How many noisy copies it looks at in one step."],
      lora_copies: [
        "Warped copies",
        "",
        "How many bent copies of your picture it looks at too. Drags may come out smoother.",
      ],
      ddim_steps: ["Noise levels", "T", "In how many steps the picture is taken apart and put together again."],
      inversion_strength: ["Depth", "t / T", "How far it is taken apart: deeper moves more and keeps less."],
      reference_control: ["Look back while rendering", "", "Keeps colours and textures as they were."],
      seed: ["Seed", "", "The same seed gives the same picture again."],
      preview_every: ["Preview every", "", "Iterations from one live preview to the next."],
      preview_side: ["Preview size", "", "Longest side of live previews, in pixels."],
    } as Readonly<Record<string, readonly [name: string, symbol: string, help: string]>>,
    symbol: (symbol: string) => `${symbol} in the paper`,
    reset: (name: string) => `Reset ${name} to its default`,
    defaults: "Reset all",
    waits: "Some of these wait for the end of the run.",
  },

  model: {
    title: "Model",
    builtin: "Good for emoji and simple drawings",
    other: "A Stable Diffusion model: good for photographs too",
    photoTitle: "This looks like a photograph",
    photo:
      "The built-in model is small and has seen little more than emoji: it will do its best, but a photograph deserves Stable Diffusion 1.5, 2.1 or a fine-tune of one. Start the server with it:",
    photoCommand: "livedrag serve --model path/to/stable-diffusion",
    understood: "Understood",
  },

  stages: {
    queued: "Waiting for a turn",
    loading: "Waking the model",
    drawing: "Drawing the picture again",
    fitting: "Getting to know the picture",
    inverting: "Taking the picture apart",
    dragging: "Dragging",
    rendering: "Finishing the picture",
    idle: "Ready",
  } satisfies Record<Stage, string>,

  stage: {
    starting: "Starting…",
    stopping: "Stopping…",
    ready: "Ready",
    readyHelp: "Press Drag when the points lie where you want them",
    needsPoints: "Ready when you are",
    needsPointsHelp: "Put a point on something and say where it should go",
    steps: (step: number, steps: number) => `${step}/${steps}`,
    iteration: (iteration: number, most: number) => `iteration ${iteration}/${most}`,
    ahead: (rooms: number) => (rooms === 1 ? "one picture ahead" : `${rooms} pictures ahead`),
    left: (seconds: number) =>
      seconds < 1
        ? "nearly done"
        : seconds < 90
          ? `${Math.ceil(seconds)} s left`
          : `${Math.ceil(seconds / 60)} min left`,
    interrupted: "Interrupted",
    interruptedHelp: "The server stopped. Drag goes on from where it was last kept",
    offline: "Not connected",
    offlineRunning: "The run goes on without this page",
  },

  prepared: {
    drawing: "Drawing the picture again meanwhile",
    fitting: "Getting to know the picture meanwhile",
    inverting: "Taking the picture apart meanwhile",
  },

  engine: {
    restarting: "The engine is starting again. Runs go on by themselves.",
    back: "The engine is back",
    short: "Engine is starting again",
  },

  timeline: {
    title: "Timeline",
    play: "Play",
    pause: "Pause",
    moment: (iteration: number) => (iteration === 0 ? "The beginning" : `Iteration ${iteration}`),
    short: (iteration: number) => (iteration === 0 ? "start" : `to ${iteration}`),
    go: "Go on from here",
    back: "Back to now",
    look: "Look through the iterations",
    branches: "Branches",
    branch: (n: number, from: number, to: number) =>
      `Branch ${n}: ${from === 0 ? "from the beginning" : `from iteration ${from}`} to iteration ${to}. Go to its end`,
    branchNow: (name: string) => `${name}. You are on it`,
  },

  history: {
    undo: "Undo",
    redo: "Redo",
    of: (verb: string, what: string | undefined) => (what === undefined ? verb : `${verb}: ${what}`),
    what: {
      add_drag: "adding a point",
      move_drag: "moving a point",
      remove_drag: "removing a point",
      add_stroke: "a brush stroke",
      remove_stroke: "removing a stroke",
      invert_mask: "turning the mask around",
      clear_mask: "clearing the mask",
      raster: "loading a mask",
      set_prompt: "the description",
      set_settings: "a setting",
    } as Readonly<Record<string, string>>,
  },

  people: {
    title: "People",
    somebody: "Somebody",
    you: "you",
    here: (names: string) => `Here: ${names}`,
    away: "away",
    came: (called: string) => `${called} is here`,
    doing: { "": "", points: "aiming", brush: "painting", eraser: "erasing", hand: "" },
    roles: { owner: "Owner", editor: "Can edit", viewer: "Can view" } satisfies Record<Role, string>,
    roleOf: (called: string) => `Role of ${called}`,
    remove: (called: string) => `Put ${called} out of the room`,
    nowRole: {
      owner: "You own this room now",
      editor: "You can edit now",
      viewer: "You can only look on now",
    } satisfies Record<Role, string>,
    name: "Your name",
    nameHelp: "Others see it beside your cursor.",
    viewing: "You are looking on",
    viewingHelp: "Ask for a link to edit if you want to take part.",
  },

  share: {
    title: "Share",
    links: "Links",
    make: { owner: "New link to own", editor: "New link to edit", viewer: "New link to view" } satisfies Record<
      Role,
      string
    >,
    copy: "Copy",
    copied: "Link copied",
    notCopied: "The browser does not let the page copy: select the link and copy it yourself",
    link: "Link",
    qr: "QR code of the link",
    once: "The link is shown this once. Whoever has it comes in by it until you revoke it.",
    revoke: (role: string) => `Revoke link: ${role}`,
    revoked: "Link revoked; whoever came by it is out",
    used: (when: string) => `used ${when}`,
    unused: "never used",
    onlyOwner: "The owner of the room makes links. Yours is in the address bar.",
    failed: (message: string) => `That did not work: ${message}`,
    delete: "Delete this room…",
    deleteSure: "Delete the room and everything in it, for everybody? There is no way back.",
    deleteYes: "Delete for everybody",
    deleteNo: "Keep it",
  },

  activity: {
    title: "Activity",
    none: "Nothing yet.",
    you: "You",
    nobody: "The run",
    times: (times: number) => (times > 1 ? ` × ${times}` : ""),
    point: (deed: string, n: number) => `${deed} ${n}`,
    deeds: {
      add_drag: "added point",
      move_drag: "moved point",
      remove_drag: "removed point",
      add_stroke: "painted",
      erase: "erased",
      remove_stroke: "removed a stroke",
      invert_mask: "turned the mask around",
      clear_mask: "cleared the mask",
      raster: "loaded a mask",
      set_prompt: "changed the description",
      set_settings: "changed settings",
      restore: "put something back",
      undo: "undid something",
      redo: "redid something",
      started: "pressed Drag",
      stopping: "pressed Stop",
      was_reset: "reset the picture",
      sought: "went along the timeline",
      arrived: "arrived",
      stopped: "stopped",
      exhausted: "ran out of iterations",
      failed: "failed",
    } satisfies Record<Deed, string>,
  },

  password: {
    title: "This server asks for a password",
    label: "Password",
    enter: "Enter",
  },

  download: {
    title: "Download",
    items: {
      result: ["Picture", "PNG at the size you uploaded"],
      "trajectory.webp": ["Film", "Animated WebP of every kept iteration"],
      "trajectory.mp4": ["Film", "MP4 of every kept iteration"],
      export: ["Room", "Zip with everything in it, to open elsewhere"],
    } satisfies Record<Keepsake, readonly [name: string, help: string]>,
  },

  outcomes: {
    arrived: "There",
    stopped: "Stopped",
    exhausted: "Out of iterations",
    failed: "That did not work",
  } satisfies Record<Outcome, string>,

  outcomeHelp: {
    arrived: (iterations: number) => `after ${iterations} iterations`,
    stopped: () => GOES_ON,
    exhausted: () => GOES_ON,
    failed: (_: number, message: string | null) => message ?? "",
  } satisfies Record<Outcome, (iterations: number, message: string | null) => string>,

  connection: {
    connecting: "Connecting…",
    open: "Connected",
    here: (people: number) => `${people} here`,
    lost: "Connection lost.",
    kept: "Go on: your changes are kept and sent when it is back.",
    trying: "Trying again…",
    again: (seconds: number) => `Trying again in ${seconds} s.`,
    now: "Try now",
    waiting: (edits: number) => (edits === 1 ? "1 change waits to be sent." : `${edits} changes wait to be sent.`),
    back: "Connected again",
  },

  unsent: {
    found: (edits: number) =>
      edits === 1 ? "A change from before is sent now." : `${edits} changes from before are sent now.`,
    dropped: (edits: number) =>
      edits === 1
        ? "A change from before can no longer be sent: the room is another one since."
        : `${edits} changes from before can no longer be sent: the room is another one since.`,
  },

  refused: {
    title: "This picture cannot be opened",
    noSecret: "The link is incomplete: the part after # is the key to the picture. Ask for the whole link.",
    home: "Start with a new picture",
  },

  rejected: (request: Request["type"] | Operation["type"], message: string): string => {
    const what: Partial<Record<Request["type"] | Operation["type"], string>> = {
      add_drag: "The point was not added",
      move_drag: "The point was not moved",
      remove_drag: "The point was not removed",
      add_stroke: "The stroke was not kept",
      remove_stroke: "The stroke was not removed",
      invert_mask: "The mask was not turned around",
      clear_mask: "The mask was not cleared",
      undo: "Not undone",
      redo: "Not redone",
      seek: "Not gone there",
      set_prompt: "The description was not changed",
      set_settings: "The setting was not changed",
      run: "The run did not start",
      stop: "Not stopped",
      reset: "Not reset",
    };
    return `${what[request] ?? "The server said no"}: ${message}`;
  },

  errors: {
    unreachable: "The server cannot be reached. Is it running?",
    status: (status: number) => `The server answered with status ${status}.`,
    uploadCut: (mebibytes: number, limit: number) =>
      `The upload was cut off. The picture has ${mebibytes.toFixed(0)} MiB; the server usually takes up to ${limit}.`,
    noPicture: "That holds no picture. PNG, JPEG and WebP work.",
    samples: "The samples cannot be listed.",
    tooShort: "The target is on the handle. Put it a little further away.",
    maskUnreadable: (name: string) => `“${name}” cannot be read as a picture.`,
    downloadFailed: (message: string) => `Not downloaded: ${message}`,
    maskFailed: (message: string) => `The mask was not loaded: ${message}`,
    notOpened: (message: string) => `Not opened: ${message}`,
    pictureFailed: (message: string) => `The picture cannot be shown: ${message}`,
  },

  announce: {
    crosshair: (x: number, y: number) => `Crosshair at ${Math.round(x)}, ${Math.round(y)}`,
    handlePut: "Handle put down. Now the target.",
    added: (n: number) => `Point ${n} added.`,
    removed: "Point removed.",
  },

  shortcuts: {
    title: "Keyboard shortcuts",
    close: "Close",
    groups: [
      {
        title: "Points",
        keys: [
          [["P"], "Crosshair: arrow keys move it, Enter puts down handle, then target"],
          [["← ↑ ↓ →"], "Nudge what is selected (Shift: ten times as far)"],
          [["D"], "Duplicate the selected point"],
          [["Delete"], "Remove the selected point"],
          [["Ctrl Z", "Ctrl Y"], "Undo, redo what you did"],
          [["Esc"], "Cancel the half-made point"],
        ],
      },
      {
        title: "Tools",
        keys: [
          [["V"], "Points"],
          [["B"], "Paint what may change"],
          [["E"], "Erase"],
          [["H"], "Move the view"],
          [["[", "]"], "Smaller, larger brush"],
          [["M"], "Show or hide the mask"],
        ],
      },
      {
        title: "View",
        keys: [
          [["+", "−"], "Zoom in, out; the wheel does too"],
          [["0", "1"], "Fit the picture; actual size"],
          [["Space"], "Hold and pull to move the view"],
          [["← ↑ ↓ →"], "Move the view while nothing is selected"],
          [["C"], "Hold to see the original"],
          [["X"], "Split view"],
        ],
      },
      {
        title: "Run",
        keys: [
          [["Enter"], "Drag"],
          [["Space", "Esc"], "Stop"],
          [["?"], "This list"],
        ],
      },
    ] as const,
  },

  dismiss: "Dismiss",
} as const;
