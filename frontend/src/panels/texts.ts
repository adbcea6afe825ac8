/** Texts of the panels around the canvas. */

import type { ActivityKind } from "../room/activity.ts";
import type { Download } from "../room/api.ts";
import type { Outcome, Prepared, Role, Stage } from "../room/protocol.ts";
import { texts as ui } from "../ui/texts.ts";

const PRESS_DRAG = "Press Drag to continue.";
const FITTING = "Learning your picture";
const INVERTING = "Analysing your picture";
const GENERATING = "Generating the picture again";

export const texts = {
  panel: "Picture settings",

  dock: {
    title: "Run",
    drag: "Drag",
    dragHelp: "Drag (Enter)",
    stop: "Stop",
    stopHelp: "Stop (Space)",
    compare: "Hold to compare",
    compareShort: "Compare",
    compareHelp: "Hold to see the original (C)",
    split: "Split view",
    splitShort: "Split",
    splitHelp: "Original and result side by side (X)",
    reset: "Reset",
    resetHelp: "Back to the original picture. The points stay.",
    download: "Download",
    downloads: {
      result: ["Picture (PNG)", "At the original size"],
      "trajectory.webp": ["Animation (WebP)", "Every stored iteration"],
      "trajectory.mp4": ["Video (MP4)", "Every stored iteration"],
      export: ["Room (ZIP)", "Everything in it, to open elsewhere"],
    } satisfies Record<Download, readonly [name: string, help: string]>,
  },

  status: {
    ready: "Ready",
    readyHelp: "Press Drag when the points are where you want them",
    noPoints: "No points yet",
    noPointsHelp: "Click on something, then click where it should go",
    starting: "Starting…",
    stopping: "Stopping…",
    steps: (step: number, steps: number) => `${step}/${steps}`,
    iteration: (iteration: number, max: number) => `iteration ${iteration}/${max}`,
    ahead: (rooms: number) => (rooms === 1 ? "1 picture ahead" : `${rooms} pictures ahead`),
    interrupted: "Interrupted",
    interruptedHelp: `The server stopped during the run. ${PRESS_DRAG}`,
    outside: (number: number) => `Point ${number} is outside the editable area.`,
    severalOutside: (count: number) => `${count} points are outside the editable area.`,
    outsideHelp: "Nothing can move there. Paint over it, or move the point.",
    unreached: (number: number, distance: number) => `Point ${number} has ${ui.pixels(distance)} to go.`,
    severalUnreached: (count: number) => `${count} points have not reached their targets.`,
    unreachedHelp: PRESS_DRAG,
    offline: "Offline",
    offlineRunning: "The run continues as long as the server is up",
    engineRestarting: "The engine is restarting",
    engineRestartingHelp: "Runs resume automatically",
    viewOnly: "View only",
    viewOnlyHelp: "Ask for an edit link to make changes.",
  },

  stages: {
    queued: "Waiting in the queue",
    loading: "Loading the model",
    generating: GENERATING,
    fitting: FITTING,
    inverting: INVERTING,
    dragging: "Dragging",
    rendering: "Rendering",
    idle: "Ready",
  } satisfies Record<Stage, string>,

  prepared: {
    generating: GENERATING,
    fitting: FITTING,
    inverting: INVERTING,
  } satisfies Partial<Record<Prepared["stage"], string>>,

  outcomes: {
    arrived: [
      "Reached the target",
      (iterations: number) => `in ${iterations} ${iterations === 1 ? "iteration" : "iterations"}`,
    ],
    stopped: ["Stopped.", () => PRESS_DRAG],
    exhausted: ["Stopped at the limit.", () => PRESS_DRAG],
    kept: ["Quick preview kept.", () => "Press Drag to let the model render it"],
    failed: ["The run failed.", (_: number, message: string | null) => message ?? ""],
  } satisfies Record<Outcome, readonly [title: string, detail: (iterations: number, message: string | null) => string]>,

  connection: {
    connecting: "Connecting…",
    open: "Connected",
    people: (count: number) => `${count} people here`,
    lost: "Connection lost.",
    keepWorking: "Keep working: your changes will be sent when you are back online.",
    retrying: "Reconnecting…",
    retryIn: (seconds: number) => `Reconnecting in ${seconds} s.`,
    retryNow: "Reconnect now",
    waiting: (edits: number) => (edits === 1 ? "1 change waiting to be sent." : `${edits} changes waiting to be sent.`),
  },

  points: {
    title: "Points",
    empty: "No points yet. Click on something in the picture, then click where it should go. Or press and drag.",
    emptyForViewers: "No points yet.",
    emptyKeys: "With the keyboard, press P.",
    handle: (number: number, x: number, y: number) =>
      `Point ${number}, handle at ${Math.round(x)}, ${Math.round(y)}. Move it with the arrow keys.`,
    target: (number: number, x: number, y: number) =>
      `Point ${number}, target at ${Math.round(x)}, ${Math.round(y)}. Move it with the arrow keys.`,
    remove: (number: number) => `Remove point ${number}`,
    duplicate: (number: number) => `Duplicate point ${number}`,
    ends: { handle: "From", target: "To" },
    coordinate: (number: number, end: "handle" | "target", axis: "x" | "y") =>
      `Point ${number}, ${end}, ${axis} in pixels`,
    waiting: "not sent yet",
    reached: "reached",
    outside: "outside the editable area",
    left: (distance: number) => `${ui.pixels(distance)} to go`,
    place: (x: number, y: number) => `${Math.round(x)}, ${Math.round(y)}`,
  },

  chart: {
    title: "Pixels to go, by iteration",
    line: (number: number, from: number, to: number) => `Point ${number} from ${ui.pixels(from)} to ${ui.pixels(to)}`,
  },

  mask: {
    title: "Editable area",
    empty: "Everything may change. Paint an area to protect the rest.",
    painted: "Only the painted area may change.",
    load: "Load mask…",
    clear: "Clear",
    invert: "Invert",
    show: "Show",
    hide: "Hide",
    paint: "Paint an area",
  },

  prompt: {
    title: "Prompt",
    placeholder: "Optional. For example: a teddy bear",
    locked: "Can be changed when the run has ended.",
    ignored: (end: string) => `Too long for this model: everything from “${end.split(/\s/)[0] ?? end}” on is ignored.`,
  },

  settings: {
    title: "Drag settings",
    advanced: "Advanced",
    presets: {
      "": ["Model default", "Tuned for this model. Start here."],
      official: ["Official", "The authors’ released code. Rendering refers to the original picture."],
      paper: ["Paper", "Exactly as published. Takes longer to prepare."],
    } as Readonly<Record<string, readonly [name: string, help: string]>>,
    groups: { drag: "Dragging", picture: "Learning the picture", preview: "Preview" },
    names: {
      warp_share: [
        "Warp first",
        "",
        "How far content is warped towards its target before the model takes over: 0 is not at all, as published, and 1 all the way.",
      ],
      latent_lr: ["Step size", "η", "How much the picture changes per iteration. Too much tears it."],
      max_iterations: ["Max iterations", "", "The run stops here, even if points have not reached their targets."],
      mask_weight: ["Mask weight", "λ", "How strictly everything outside the painted area is preserved."],
      arrival_distance: ["Arrival tolerance", "", "A point this close to its target has reached it."],
      supervision_radius: ["Supervision radius", "r₁", "The size of the patch that is moved around each handle."],
      supervision_template: [
        "Supervision template",
        "",
        "What is moved: what the handle is on now, or what it was placed on.",
      ],
      supervision_step: [
        "Supervision step",
        "",
        "How far each step pulls, in cells. 4 is one cell of the model’s features.",
      ],
      steps_per_tracking: ["Steps per tracking", "", "Iterations before the handle is searched for again."],
      background: ["Background", "", "How everything outside the painted area is preserved."],
      detail: ["Fine detail", "", "Where content only moved: the original’s own pixels, moved, or the model’s."],
      tracking_radius: ["Tracking radius", "r₂", "How far around each handle its content is searched for."],
      lora_steps: ["LoRA steps", "", "How long the model learns your picture. Fewer is faster and less faithful."],
      lora_rank: ["LoRA rank", "r", "How much of your picture the model can learn."],
      lora_lr: ["LoRA learning rate", "", "How fast the model learns your picture."],
      lora_batch: ["LoRA batch size", "", "How many noisy copies the model sees per step."],
      lora_copies: [
        "LoRA augmentation",
        "",
        "How many warped copies the model learns as well. May give smoother drags.",
      ],
      ddim_steps: ["DDIM steps", "T", "The number of steps to invert and to render the picture."],
      inversion_strength: [
        "Inversion strength",
        "t / T",
        "How far the picture is inverted. More can move more, and preserves less.",
      ],
      reference_control: ["Reference control", "", "Keeps colours and textures of the original while rendering."],
      seed: ["Seed", "", "The same seed gives the same result."],
      preview_every: ["Preview interval", "", "Iterations from one live preview to the next."],
      preview_side: ["Preview size", "", "The longest side of live previews, in pixels."],
    } as Readonly<Record<string, readonly [name: string, symbol: string, help: string]>>,
    choices: {
      supervision_template: { current: "Current (paper)", first: "First" },
      background: { loss: "Mask loss (paper)", keep: "Restore it" },
      detail: { carried: "Carried along", model: "From the model" },
    } as Readonly<Record<string, Readonly<Record<string, string>>>>,
    symbol: (symbol: string) => `${symbol} in the paper`,
    unsuitable: (reason: string) => `Doesn’t suit this model: ${reason}.`,
    reset: (name: string) => `Reset ${name} to its default`,
    resetAll: "Reset all",
    locked: "Some settings can be changed only when the run has ended.",
  },

  model: {
    builtin: "Good for emoji and simple drawings",
    stableDiffusion: "A Stable Diffusion model, good for photos too",
    unknownTitle: "This model doesn’t know pictures like this one",
    unknown: "The quick preview may look better than its results, and you can keep it.",
    keep: "Keep quick preview",
    keepNeedsPoints: "Place a point and its target first",
    otherModel:
      "The built-in model is small and was trained mostly on emoji. For other pictures, use Stable Diffusion 1.5, 2.1 or a model fine-tuned from one of them. Start the server with:",
    otherModelCommand: "livedrag serve --model path/to/stable-diffusion",
    dismiss: "Got it",
  },

  timeline: {
    title: "Timeline",
    empty: "The steps of a run appear here.",
    play: "Play",
    pause: "Pause",
    moment: (iteration: number) => (iteration === 0 ? "Start" : `Iteration ${iteration}`),
    browse: "Browse iterations",
    seek: "Return to this step",
    back: "Back",
    backHelp: "Back to the current step",
    branches: "Branches",
    branchEnd: (iteration: number) => (iteration === 0 ? "start" : `to ${iteration}`),
    branch: (number: number, from: number, to: number) =>
      `Branch ${number}: from ${from === 0 ? "the start" : `iteration ${from}`} to iteration ${to}. Go to its end`,
    currentBranch: (name: string) => `${name}. Current branch`,
  },

  people: {
    title: "People",
    you: "you",
    here: (names: string) => `Here: ${names}`,
    away: "away",
    roles: { owner: "Owner", editor: "Can edit", viewer: "Can view" } satisfies Record<Role, string>,
    roleOf: (name: string) => `Role of ${name}`,
    remove: (name: string) => `Remove ${name} from the room`,
    removeQuestion: (name: string) => `Remove ${name} from the room? Their link no longer lets them in.`,
    removeConfirm: "Remove",
    yourName: "Your name",
    yourNameHelp: "Shown next to your cursor.",
  },

  share: {
    title: "Share",
    links: "Links",
    create: {
      owner: "New owner link",
      editor: "New edit link",
      viewer: "New view link",
    } satisfies Record<Role, string>,
    copy: "Copy",
    copied: "Link copied",
    copyFailed: "Couldn't copy the link. Select it and copy it yourself.",
    link: "Link",
    shownOnce: "This link is shown only once. Anyone with this link can join until you revoke it.",
    revoke: (role: string) => `Revoke link: ${role}`,
    revokeQuestion: "Revoke this link? Everyone who joined with it is removed from the room.",
    revokeConfirm: "Revoke",
    revoked: "Link revoked. Everyone who joined with it has been removed.",
    used: (when: string) => `last used ${when}`,
    unused: "never used",
    ownersOnly: "Only the owner can create links. Your own link is in the address bar.",
    failed: (message: string) => `That didn't work: ${message}`,
    delete: "Delete room…",
    deleteQuestion: "Delete this room and everything in it, for everyone? This can't be undone.",
    deleteConfirm: "Delete for everyone",
  },

  activity: {
    title: "Activity",
    empty: "Nothing yet.",
    you: "You",
    run: "The run",
    times: (times: number) => (times > 1 ? ` × ${times}` : ""),
    point: (what: string, number: number) => `${what} ${number}`,
    kinds: {
      add_drag: "added point",
      move_drag: "moved point",
      remove_drag: "removed point",
      add_stroke: "painted the mask",
      erase: "erased from the mask",
      remove_stroke: "removed a brush stroke",
      invert_mask: "inverted the mask",
      clear_mask: "cleared the mask",
      raster: "loaded a mask",
      set_prompt: "changed the prompt",
      set_settings: "changed settings",
      restore: "restored a change",
      undo: "undid a change",
      redo: "redid a change",
      started: "pressed Drag",
      stopping: "pressed Stop",
      was_reset: "reset the picture",
      seeked: "jumped to a step",
      arrived: "reached the target",
      stopped: "stopped",
      exhausted: "stopped at the limit",
      failed: "failed",
      kept: "kept the quick preview",
    } satisfies Record<ActivityKind, string>,
  },
} as const;
