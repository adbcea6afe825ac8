/** Texts of the editor's frame: header, dialogs, refusals. */

export const texts = {
  editor: "livedrag: edit a picture",
  home: "livedrag home",
  newPicture: "New picture",
  title: "Name of the picture",
  untitled: "Untitled",

  history: {
    undo: "Undo",
    redo: "Redo",
    what: {
      add_drag: "add point",
      move_drag: "move point",
      remove_drag: "remove point",
      add_stroke: "brush stroke",
      remove_stroke: "remove brush stroke",
      invert_mask: "invert mask",
      grow_mask: "expand or shrink mask",
      clear_mask: "clear mask",
      raster: "load mask",
      set_prompt: "change prompt",
      set_settings: "change setting",
      mark_branch: "change a branch",
      run: "run",
      reset: "reset",
      seek: "jump to a step",
      edit_further: "edit further",
      replace_picture: "replace picture",
      restore: "return to a result",
      set_pin: "change pin",
      set_title: "rename",
      set_model: "change model",
    } as Readonly<Record<string, string>>,
  },

  dropped: {
    title: (name: string) => `Open “${name}”?`,
    picture:
      "As a new picture it gets its own room, and this one stays under My pictures. Replacing the picture removes its points and result for everyone here; Undo brings them back.",
    newOnly: "It opens as a new picture in its own room. This one stays as it is, under My pictures.",
    room: "This is an exported room. It is restored as a new room; this one stays as it is.",
    openPicture: "Open as a new picture",
    replace: "Replace this picture",
    openRoom: "Restore the room",
    cancel: "Cancel",
  },

  refused: {
    title: "Can't open this picture",
    home: "Open a new picture",
  },

  shortcuts: "Keyboard shortcuts",
} as const;
