/** The colours of points: dark enough for white numbers (4.5:1), and as distinct for colour-blind people as eight can be. */
const POINT_COLOURS = ["#d6293e", "#0a66c2", "#18794e", "#8e4ec6", "#b54708", "#0f766e", "#c2257b", "#5b6270"] as const;

/** The colour of a point by its number, from 1. */
export function pointColour(number: number): string {
  return POINT_COLOURS[(number - 1) % POINT_COLOURS.length] ?? POINT_COLOURS[0];
}
