import { useEffect, useRef } from "preact/hooks";
import * as store from "../room/store.ts";
import { CloseIcon } from "../ui/icons.tsx";
import { shownName } from "./CanvasBadge.tsx";
import { texts } from "./texts.ts";

const labels = texts.sideBySide;

export function toggleSideBySide(): void {
  store.sideBySide.value = store.sideBySide.value ? false : store.pictureNow.value !== null;
}

/** Returns whether it was open. */
export function closeSideBySide(): boolean {
  const was = store.sideBySide.value;
  store.sideBySide.value = false;
  return was;
}

/** Original and result beside each other, each whole and of the same size; over the canvas, to look at only. */
export function SideBySide() {
  const before = store.original.value;
  const after = store.pictureNow.value;
  if (!store.sideBySide.value || before === null || after === null) return null;
  return (
    <div class="side-by-side" role="group" aria-label={labels.title} data-testid="side-by-side">
      <Shown name={texts.showing.original} bitmap={before} />
      <Shown name={shownName()} bitmap={after} />
      <button
        type="button"
        class="quiet-button side-by-side-close"
        aria-label={labels.close}
        title={labels.closeHelp}
        onClick={toggleSideBySide}
      >
        <CloseIcon />
      </button>
    </div>
  );
}

function Shown({ name, bitmap }: { readonly name: string; readonly bitmap: ImageBitmap }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const picture = store.picture.value;
  useEffect(() => {
    if (canvas.current === null || picture === null) return;
    // Previews are smaller than the picture, but show all of it.
    canvas.current.width = picture.width;
    canvas.current.height = picture.height;
    canvas.current.getContext("2d")?.drawImage(bitmap, 0, 0, picture.width, picture.height);
  }, [bitmap, picture?.width, picture?.height]);
  return (
    <figure>
      <canvas ref={canvas} role="img" aria-label={name} />
      <figcaption>{name}</figcaption>
    </figure>
  );
}
