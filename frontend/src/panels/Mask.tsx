import { useRef } from "preact/hooks";
import { chooseTool } from "../canvas/pointer.ts";
import { clearMask, invertMask } from "../room/actions.ts";
import { loadMask } from "../room/files.ts";
import * as store from "../room/store.ts";
import { texts } from "./texts.ts";

const words = texts.mask;

export function MaskSection() {
  const painted = store.mask.value.length > 0;
  return (
    <section aria-labelledby="mask-title">
      <h2 id="mask-title">{words.title}</h2>
      <p class="empty">{painted ? words.painted : words.empty}</p>
      {store.editable.value && (
        <div class="row">
          {!painted && (
            <button type="button" class="small-button" onClick={() => chooseTool("paint")}>
              {words.paint}
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
                {store.maskShown.value ? words.hide : words.show}
              </button>
              <button type="button" class="small-button" onClick={invertMask}>
                {words.invert}
              </button>
              <button type="button" class="small-button" onClick={clearMask}>
                {words.clear}
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
        {words.load}
      </button>
      <input
        ref={input}
        type="file"
        class="visually-hidden"
        tabIndex={-1}
        accept="image/*"
        aria-label={words.load}
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
