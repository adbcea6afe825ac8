/** Texts about the room as a whole: notices, errors, announcements. */

import type { Operation, PointingTool, Request, Role } from "./protocol.ts";

type RequestKind = Request["type"] | Operation["type"];

const REJECTED: Partial<Record<RequestKind, string>> = {
  add_drag: "Couldn't add the point",
  move_drag: "Couldn't move the point",
  remove_drag: "Couldn't remove the point",
  add_stroke: "Couldn't add the brush stroke",
  remove_stroke: "Couldn't remove the brush stroke",
  invert_mask: "Couldn't invert the mask",
  grow_mask: "Couldn't change the mask",
  clear_mask: "Couldn't clear the mask",
  set_prompt: "Couldn't change the prompt",
  set_settings: "Couldn't change the setting",
  mark_branch: "Couldn't change the branch",
  set_pin: "Couldn't change the pin",
  set_title: "Couldn't rename the picture",
  set_model: "Couldn't use that model",
  undo: "Couldn't undo",
  redo: "Couldn't redo",
  seek: "Couldn't jump to that step",
  run: "Couldn't start the run",
  stop: "Couldn't stop the run",
  reset: "Couldn't reset",
  edit_further: "Couldn't continue with the result",
  restore_run: "Couldn't go back to that result",
};

const changes = (count: number): string => (count === 1 ? "1 earlier change" : `${count} earlier changes`);

export const texts = {
  people: {
    anonymous: "Anonymous",
    overwrote: (name: string, number: number) => `${name} moved point ${number}, which you had placed.`,
    joined: (name: string) => `${name} joined`,
    activity: { "": "", points: "placing points", brush: "painting", eraser: "erasing", hand: "" } satisfies Record<
      PointingTool,
      string
    >,
    newRole: {
      owner: "You own this room now",
      editor: "You can edit now",
      viewer: "You can only view now",
    } satisfies Record<Role, string>,
  },

  connection: { restored: "Reconnected" },

  page: {
    reloading: "livedrag has been updated. Reloading this page…",
    older: "This page is older than the server. Reload it.",
  },

  unsent: {
    sending: (count: number) => `Sending ${changes(count)}.`,
    discarded: (count: number) =>
      `Discarded ${changes(count)}: this room has been restored since, or too much time has passed.`,
  },

  refused: {
    noSecret: "This link is incomplete: the part after # is missing. Ask for the full link.",
    noCookies: "This server requires a password, and your browser blocks its cookies. Allow cookies for this site.",
  },

  engine: {
    restarting: "The engine is restarting. Runs resume automatically.",
    restarted: "The engine is running again",
  },

  copied: "Picture copied",

  mask: { loaded: "Mask loaded" },

  picture: { replaced: "Picture replaced. Undo brings back the previous one." },

  rejected: (kind: RequestKind, message: string) => `${REJECTED[kind] ?? "The server refused this"}: ${message}`,

  errors: {
    unreachable: "Can't reach the server. Is it running?",
    status: (status: number) => `The server answered with status ${status}.`,
    targetOnHandle: "The target is on the handle. Place it a little further away.",
    replaceFailed: (message: string) => `Couldn't replace the picture: ${message}`,
    keepFailed: (message: string) => `Couldn't keep the quick preview: ${message}`,
    maskFailed: (message: string) => `Couldn't load the mask: ${message}`,
    copyFailed: (message: string) => `Couldn't copy the picture: ${message}`,
    noFormat: (format: string) => `This browser can't write ${format.toUpperCase()}.`,
    downloadFailed: (message: string) => `Couldn't download: ${message}`,
    pictureFailed: (message: string) => `Couldn't show the picture: ${message}`,
  },

  announcements: {
    handlePlaced: "Handle placed. Now place the target.",
    pointAdded: (number: number) => `Point ${number} added.`,
    pointRemoved: "Point removed.",
    pinAdded: "Pin added.",
    pinRemoved: "Pin removed.",
  },
} as const;
