/** The keyboard shortcuts, for their list. */
export const shortcutGroups = [
  {
    title: "Points",
    shortcuts: [
      [["P"], "Crosshair: move with the arrow keys, place handle and target with Enter"],
      [["← ↑ ↓ →"], "Move what is selected (Shift: ten times as far)"],
      [["D"], "Duplicate the selected point"],
      [["Delete"], "Remove the selected point or pin"],
      [["Ctrl Z", "Ctrl Y"], "Undo, redo your changes"],
      [["Esc"], "Cancel the unfinished point"],
    ],
  },
  {
    title: "Tools",
    shortcuts: [
      [["V"], "Points"],
      [["N"], "Pins, which stay in place"],
      [["B"], "Paint the editable area"],
      [["E"], "Erase"],
      [["R", "L", "W"], "Rectangle, lasso, select similar colours"],
      [["H"], "Hand"],
      [["[", "]"], "Smaller, larger brush"],
      [["M"], "Show or hide the mask"],
    ],
  },
  {
    title: "View",
    shortcuts: [
      [["+", "−"], "Zoom in, out (also with the wheel)"],
      [["0", "1"], "Zoom to fit, zoom to 100%"],
      [["Space"], "Hold and drag to move the view"],
      [["← ↑ ↓ →"], "Move the view while nothing is selected"],
      [["C"], "Hold to see the original"],
      [["X"], "Split view"],
      [["S"], "Side by side"],
      [["F"], "Flicker between original and result"],
    ],
  },
  {
    title: "Run",
    shortcuts: [
      [["Enter"], "Drag"],
      [["Space", "Esc"], "Stop"],
      [["?"], "Show this list"],
    ],
  },
] as const;
