/** Guesses whether a picture is a photo rather than a drawing, for a hint and nothing else. */

/** Drawings have plain areas; in a photo, hardly any pixel equals its neighbour. */
const MAX_EQUAL_NEIGHBOURS = 0.3;
/** Side of the centre crop that is looked at, in pixels; scaling down would smooth the grain away. */
const MAX_SIDE = 512;

/** `data` is RGBA, row by row. */
export function looksLikePhoto({ data, width, height }: Pick<ImageData, "data" | "width" | "height">): boolean {
  if (width < 2 || height < 1) return false;
  let equal = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 1; x < width; x++) {
      const at = (y * width + x) * 4;
      if (data[at] === data[at - 4] && data[at + 1] === data[at - 3] && data[at + 2] === data[at - 2]) equal += 1;
    }
  }
  return equal / ((width - 1) * height) < MAX_EQUAL_NEIGHBOURS;
}

export function isPhoto(bitmap: ImageBitmap): boolean {
  const width = Math.min(MAX_SIDE, bitmap.width);
  const height = Math.min(MAX_SIDE, bitmap.height);
  const canvas = window.document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (context === null) return false;
  context.drawImage(bitmap, -Math.round((bitmap.width - width) / 2), -Math.round((bitmap.height - height) / 2));
  return looksLikePhoto(context.getImageData(0, 0, width, height));
}
