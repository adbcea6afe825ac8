/** Whether a picture is a photograph rather than a drawing: a guess, for a kind note and nothing else. */

/** In a photograph hardly any pixel is exactly as its neighbour; drawings have plain ground. */
const PLAIN = 0.3;
/** Longest side looked at, in pixels from the middle: shrinking would smooth the grain away. */
const SIDE = 512;

/** `data` is RGBA, row by row. */
export function looksLikePhotograph({ data, width, height }: Pick<ImageData, "data" | "width" | "height">): boolean {
  if (width < 2 || height < 1) return false;
  let same = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 1; x < width; x++) {
      const at = (y * width + x) * 4;
      const apart =
        Math.abs((data[at] ?? 0) - (data[at - 4] ?? 0)) +
        Math.abs((data[at + 1] ?? 0) - (data[at - 3] ?? 0)) +
        Math.abs((data[at + 2] ?? 0) - (data[at - 2] ?? 0));
      if (apart === 0) same += 1;
    }
  }
  return same / ((width - 1) * height) < PLAIN;
}

export function isPhotograph(bitmap: ImageBitmap): boolean {
  const width = Math.min(SIDE, bitmap.width);
  const height = Math.min(SIDE, bitmap.height);
  const canvas = window.document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) return false;
  context.drawImage(bitmap, -Math.round((bitmap.width - width) / 2), -Math.round((bitmap.height - height) / 2));
  return looksLikePhotograph(context.getImageData(0, 0, width, height));
}
