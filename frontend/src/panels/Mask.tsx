import { useRef } from "preact/hooks";
import { chooseTool } from "../canvas/pointer.ts";
import { clearMask, invertMask } from "../room/actions.ts";
import { loadMask, PICTURE_TYPES } from "../room/files.ts";
import * as store from "../room/store.ts";
import { texts } from "./texts.ts";

const labels = texts.mask;

export function MaskSection() {
  const painted = store.mask.value.length > 0;
  return (
    <section aria-labelledby="mask-title">
      <h2 id="mask-title">{labels.title}</h2>
      <p class="empty">{painted ? labels.painted : labels.empty}</p>
      {store.editable.value && (
        <div class="row">
          {!painted && (
            <button type="button" class="small-button" onClick={() => chooseTool("paint")}>
              {labels.paint}
            </button>
          )}
          <LoadButton />
          {painted && (
            <>
              <button
                type="button"
                class="small-button"
                onClick={() => (store.maskShown.value = !store.maskShown.value)}
              >
                {store.maskShown.value ? labels.hide : labels.show}
              </button>
              <button type="button" class="small-button" onClick={invertMask}>
                {labels.invert}
              </button>
              <button type="button" class="small-button" onClick={clearMask}>
                {labels.clear}
              </button>
            </>
          )}
        </div>
      )}
    </section>
  );
}

function LoadButton() {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button type="button" class="small-button" onClick={() => input.current?.click()}>
        {labels.load}
      </button>
      <input
        ref={input}
        type="file"
        class="visually-hidden"
        tabIndex={-1}
        accept={PICTURE_TYPES}
        aria-label={labels.load}
        data-testid="mask-file"
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (file) void loadMask(file);
        }}
      />
    </>
  );
}
