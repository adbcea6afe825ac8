/** Texts of what is loaded after the first screen (`later.ts`). */

import type { ActivityKind } from "../room/activity.ts";
import type { PictureFormat } from "../room/files.ts";
import type { Role } from "../room/protocol.ts";
import { texts as ui } from "../ui/texts.ts";

export const texts = {
  picture: {
    title: "Download picture",
    format: "Format",
    formats: { png: "PNG", jpeg: "JPEG", webp: "WebP" } satisfies Record<PictureFormat, string>,
    quality: "Quality",
    lossless: "PNG keeps every pixel exactly.",
    size: "Size",
    sizes: (percent: number, width: number, height: number) => `${percent}% (${width} × ${height})`,
    metadata: "With metadata",
    metadataHelp: "Says in the file how the picture was made: prompt, points and settings.",
    metadataOnly: "Only a PNG at 100% can say how it was made.",
    copy: "Copy to clipboard",
  },

  tour: {
    hints: [
      {
        title: "Place points",
        text: "Click on something in the picture, then click where it should go. A preview shows at once. Move points whenever you like, even during a run.",
        touch:
          "Tap something in the picture, then tap where it should go. A preview shows at once. Move points whenever you like, even during a run.",
      },
      {
        title: "Protect the rest",
        text: "Optional: press B and paint the area that may change. Everything else stays as it is.",
        touch: "Optional: choose Paint and paint the area that may change. Everything else stays as it is.",
      },
      {
        title: "Drag",
        text: "Press Drag (Enter) and watch it move. Ctrl+Z undoes; ? lists all shortcuts.",
        touch: "Press Drag and watch it move. The arrows at the top undo and redo.",
      },
    ],
    step: (step: number, steps: number) => `${step} of ${steps}`,
    next: "Next",
    done: "Got it",
    dismiss: "Don't show hints",
  },

  chart: {
    title: "Pixels to go, by iteration",
    line: (number: number, from: number, to: number) => `Point ${number} from ${ui.pixels(from)} to ${ui.pixels(to)}`,
  },

  settings: {
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
      arrival_check: [
        "Arrival check",
        "",
        "What decides that a point has arrived: its tracked place, or the picture too.",
      ],
      arrival_distance: ["Arrival tolerance", "", "A point this close to its target has reached it."],
      supervision_radius: ["Supervision radius", "r₁", "The size of the patch that is moved around each handle."],
      supervision: ["Supervision", "", "What is pulled: a patch around each handle, or everything that moves with it."],
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
      alternation: [
        "Alternation",
        "",
        "Noise levels to drag at, one after the other, with a denoising step in between.",
      ],
      background: ["Background", "", "How everything outside the painted area is preserved."],
      detail: ["Fine detail", "", "Where content only moved: the original’s own pixels, moved, or the model’s."],
      feather: ["Feather", "", "How softly the result blends into the picture at the border of the editable area."],
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
      supervision: { points: "Points (paper)", region: "Region" },
      supervision_template: { current: "Current (paper)", first: "First" },
      arrival_check: { tracker: "Tracker (paper)", content: "Picture" },
      background: { loss: "Mask loss (paper)", keep: "Restore it" },
      detail: { carried: "Carried along", model: "From the model" },
    } as Readonly<Record<string, Readonly<Record<string, string>>>>,
    symbol: (symbol: string) => `${symbol} in the paper`,
    reset: (name: string) => `Reset ${name} to its default`,
    resetAll: "Reset all",
    locked: "Some settings can be changed only when the run has ended.",
  },

  trials: {
    title: "Compare settings",
    explanation:
      "Each choice is a run with the same points, from the unedited picture. The results are shown side by side, and you keep one of them.",
    choose: "Settings to try",
    run: (count: number) => (count === 1 ? "Run 1 variant" : `Run ${count} variants`),
    stop: "Stop",
    others: "Try others",
    before: "Result so far",
    keep: "Keep this one",
    keepName: (name: string) => `Keep this one: ${name}`,
    waiting: "Waiting",
    failed: "This run failed.",
    reached: (iterations: number) =>
      `Reached the target in ${iterations} ${iterations === 1 ? "iteration" : "iterations"}`,
    preset: (name: string) => `Preset: ${name}`,
    kinds: {
      region: [
        () => "Pull the whole region",
        "Everything that moves along is pulled, not just patches at the handles.",
      ],
      points: [() => "Pull at the handles", "Patches around the handles are pulled, as in the paper."],
      larger_steps: [() => "Steps twice as large", "Moves content that lags behind. May tear it."],
      more_iterations: [(value: string) => `Up to ${value} iterations`, "For content that is on its way, but slow."],
      seed: [(value: string) => `Seed ${value}`, "Another random start of what the model learns."],
    } satisfies Record<string, readonly [name: (value: string) => string, help: string]>,
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
    revokeOwnerQuestion:
      "Revoke this owner link? Everyone else who joined with it is removed from the room. If it is the last one, a new owner link is created for you.",
    ownerRevoked: "If that was your own link, create a new one, or you can't return as the owner from another browser.",
    revokeConfirm: "Revoke",
    revoked: "Link revoked. Everyone who joined with it has been removed.",
    used: (when: string) => `last used ${when}`,
    unused: "never used",
    ownersOnly: "Only the owner can create links. Your own link is in the address bar.",
    delete: "Delete room…",
    deleteQuestion: "Delete this room and everything in it, for everyone? This can't be undone.",
    deleteConfirm: "Delete for everyone",
  },

  activity: {
    undone: "undone",
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
      grow_mask: "expanded or shrank the mask",
      clear_mask: "cleared the mask",
      raster: "loaded a mask",
      set_prompt: "changed the prompt",
      set_settings: "changed settings",
      mark_branch: "named or removed a branch",
      set_pin: "changed a pin",
      set_title: "renamed the picture",
      restore: "returned to an earlier result",
      undo: "undid a change",
      redo: "redid a change",
      started: "pressed Drag",
      stopping: "pressed Stop",
      was_reset: "reset the picture",
      seeked: "jumped to a step",
      base_replaced: "changed the picture that is edited",
      arrived: "reached the target",
      stopped: "stopped",
      exhausted: "stopped at the limit",
      failed: "failed",
      kept: "kept the quick preview",
    } satisfies Record<ActivityKind, string>,
  },
} as const;
