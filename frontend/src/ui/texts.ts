/** Texts of the building blocks, and how numbers are written. */

/** Two significant digits for small lengths, whole pixels for others. */
const pixelCount = (value: number): string => (value < 9.95 ? value.toFixed(1) : Math.round(value).toString());

function timeLeft(seconds: number): string {
  if (seconds < 1) return "nearly done";
  return seconds < 90 ? `${Math.ceil(seconds)} s left` : `${Math.ceil(seconds / 60)} min left`;
}

export const texts = {
  product: "livedrag",
  pixels: (value: number) => `${pixelCount(value)} px`,
  timeLeft,
  cancel: "Cancel",
  close: "Close",
  dismiss: "Dismiss",
  more: "More",
  qrCode: "QR code of the link",
  theme: {
    title: "Theme",
    choices: { system: "System", light: "Light", dark: "Dark" },
  },
} as const;
