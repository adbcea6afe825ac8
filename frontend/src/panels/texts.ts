/** Texts of the panels around the canvas. */

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
    splitHelp: "Original on the left, result on the right (X)",
    sideBySide: "Side by side",
    sideBySideHelp: "Original and result beside each other (S)",
    flicker: "Flicker",
    flickerHelp: "Alternate between original and result (F)",
    reset: "Reset",
    resetHelp: "Back to the original picture. The points stay.",
    further: "Edit this further",
    furtherShort: "Further",
    furtherHelp: "Use the result as the picture to edit. Removes the points; Undo brings everything back.",
    download: "Download",
    more: "More",
    downloads: {
      result: ["Picture (PNG)", "At the original size"],
      "trajectory.webp": ["Animation (WebP)", "Every stored iteration"],
      "trajectory.mp4": ["Video (MP4)", "Every stored iteration"],
      "numbers.csv": ["Numbers (CSV)", "Every point of the last run, by iteration"],
      "numbers.json": ["Numbers (JSON)", "The same, for scripts"],
      export: ["Room (ZIP)", "Everything in it, to open elsewhere"],
    } satisfies Record<Download, readonly [name: string, help: string]>,
    pictureAs: "Picture as…",
    pictureAsHelp: "Another format or size, or the clipboard",
  },

  status: {
    ready: "Ready",
    readyHelp: "Press Drag when the points are in place",
    noPoints: "No points yet",
    noPointsTouch: "Tap something, then where it should go",
    noPointsHelp: "Click on something, then where it should go",
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
    serverStopped: "The server was stopped",
    serverStoppedRunning: "You can continue the run when it is back",
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
    loading: "Loading the model",
    generating: GENERATING,
    fitting: FITTING,
    inverting: INVERTING,
  } satisfies Partial<Record<Prepared["stage"], string>>,

  outcomes: {
    arrived: [
      "Reached the target",
      (iterations: number, _message: string | null, total: number) =>
        `in ${iterations} ${iterations === 1 ? "iteration" : "iterations"}${total > iterations ? ` (${total} in total)` : ""}`,
    ],
    stopped: ["Stopped.", () => PRESS_DRAG],
    exhausted: ["Stopped at the limit.", () => PRESS_DRAG],
    kept: ["Kept as the result.", () => "Press Drag to let the model render it from the start"],
    failed: ["The run failed.", (_: number, message: string | null) => message ?? ""],
  } satisfies Record<
    Outcome,
    readonly [title: string, detail: (iterations: number, message: string | null, total: number) => string]
  >,

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
    emptyTouch: "No points yet. Tap something in the picture, then tap where it should go.",
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
    lost: "The content did not follow.",
    lostHelp: "Try another place for the handle, a larger editable area or more iterations, or keep the quick preview.",
    shown: (distance: number) => `${ui.pixels(distance)} to go in the picture`,
    left: (distance: number) => `${ui.pixels(distance)} to go`,
    place: (x: number, y: number) => `${Math.round(x)}, ${Math.round(y)}`,
  },

  pins: {
    title: "Pins",
    place: (number: number, x: number, y: number) => `Pin ${number} at ${Math.round(x)}, ${Math.round(y)}`,
    remove: (number: number) => `Remove pin ${number}`,
  },

  mask: {
    title: "Editable area",
    empty: "Everything may change. Paint an area to protect the rest.",
    painted: "Only the painted area may change.",
    load: "Load mask…",
    loadHelp: "A picture in which white may change and black stays",
    convention: "In mask files, white may change and black stays.",
    fitQuestion: "This mask isn’t the same size as the picture. Scale it to fit?",
    fit: "Scale to fit",
    growth: "Pixels",
    grow: "Expand",
    shrink: "Shrink",
    feather: "Feather",
    featherHelp: "How softly the result blends into the picture at the border of the area",
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
      official: ["Official", "The authors’ released code. Rendering uses the original as a reference."],
      gooddrag: ["GoodDrag", "Alternates dragging and denoising. Takes the longest."],
      paper: ["Paper", "Exactly as published. Takes longer to prepare."],
    } as Readonly<Record<string, readonly [name: string, help: string]>>,
    unsuitable: (reason: string) => `Doesn’t suit this model: ${reason}.`,
  },

  model: {
    change: "Change…",
    builtin: "Emoji, simple drawings",
    stableDiffusion: "Photos and drawings",
    unknownTitle: "This model doesn’t know pictures like this one",
    unknown: "The quick preview may look better than the result. You can keep it instead.",
    keep: "Keep quick preview",
    keepNeedsPoints: "Place a point and its target first",
    otherModel:
      "The built-in model is small and was trained mostly on emoji. For other pictures, use Stable Diffusion 1.5, 2.1 or a model fine-tuned from one of them. Start the server with:",
    otherModelCommand: "livedrag serve --model path/to/stable-diffusion",
    dismiss: "Got it",
  },

  trials: {
    open: "Compare settings…",
    openAgain: "Show comparison",
    openHelp: "Run the same points with other settings, and keep the best result",
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
    branchCount: (count: number) => `${count} branches`,
    branchEnd: (iteration: number) => (iteration === 0 ? "start" : `to ${iteration}`),
    branchName: (number: number) => `Branch ${number}`,
    rename: (name: string) => `Name of ${name}`,
    removeBranch: (name: string) => `Remove ${name} from the list`,
    branch: (name: string, from: number, to: number) =>
      `${name}: from ${from === 0 ? "the start" : `iteration ${from}`} to iteration ${to}. Return to its end`,
    currentBranch: (name: string) => `${name}. Current branch`,
  },

  share: "Share",
  activity: "History",

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
    askName: "What should others call you?",
    saveName: "Save name",
    skipName: "Skip",
    follow: (name: string) => `Follow ${name}`,
    following: (name: string) => `Following ${name}`,
    unfollow: "Stop following",
    yourName: "Your name",
    failed: (message: string) => `That didn't work: ${message}`,
    yourNameHelp: "Shown next to your cursor.",
  },
} as const;
