import { useEffect, useState } from "preact/hooks";
import type { RoomKey } from "../room/address.ts";
import { PICTURE_TYPES } from "../room/files.ts";
import { Mark, PictureIcon } from "../ui/icons.tsx";
import { MoreMenu } from "../ui/MoreMenu.tsx";
import { isTouch } from "../ui/touch.ts";
import { texts as ui } from "../ui/texts.ts";
import { fetchSamples } from "./api.ts";
import type { Sample } from "./api.ts";
import { GenerateForm, GenerationView } from "./Generation.tsx";
import { generation } from "./generation.ts";
import { MyPictures } from "./MyPictures.tsx";
import type { PictureOpener } from "./picture-opener.ts";
import { Gallery, Showcase } from "./Samples.tsx";
import { texts } from "./texts.ts";

const labels = texts.landing;

/** `enter` goes to a room. */
export function Landing({ opener, enter }: { readonly opener: PictureOpener; readonly enter: (key: RoomKey) => void }) {
  const samples = useSamples();
  useEffect(() => {
    window.document.title = ui.product;
  }, []);
  return (
    <div class="landing">
      <header class="landing-head">
        <span class="brand">
          <Mark />
          {ui.product}
        </span>
        <span class="spring" />
        <MoreMenu />
      </header>
      <main>
        <section class="hero">
          <div class="hero-text">
            <h1>{labels.title}</h1>
            <p>{isTouch() ? labels.claimTouch : labels.claim}</p>
          </div>
          {generation.value === null ? (
            <Showcase samples={samples} opener={opener} />
          ) : (
            <GenerationView generation={generation.value} opener={opener} />
          )}
          <div class="start-options">
            <DropZone opener={opener} />
            <GenerateForm opener={opener} />
          </div>
        </section>
        <MyPictures enter={enter} />
        {samples.length > 0 && <Gallery samples={samples} opener={opener} />}
      </main>
    </div>
  );
}

function DropZone({ opener }: { readonly opener: PictureOpener }) {
  return (
    <label class={`drop-zone ${opener.dragOver ? "is-over" : ""} ${opener.busy ? "is-busy" : ""}`}>
      <input
        type="file"
        class="visually-hidden"
        accept={`${PICTURE_TYPES},.zip`}
        data-testid="picture-file"
        disabled={opener.busy}
        aria-label={labels.choose}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (file) opener.open(file);
        }}
      />
      <span class="drop-art">
        <PictureIcon />
      </span>
      {opener.busy ? (
        <strong role="status">{labels.opening}</strong>
      ) : (
        <>
          <strong class="for-mouse">{labels.drop}</strong>
          <span class="for-mouse">
            {labels.dropOr} <span class="link">{labels.choose}</span>
          </span>
          <strong class="for-touch">{labels.open}</strong>
          <span class="for-touch">{labels.openFrom}</span>
          <small>{labels.formats}</small>
        </>
      )}
    </label>
  );
}

function useSamples(): readonly Sample[] {
  const [samples, setSamples] = useState<readonly Sample[]>([]);
  useEffect(() => {
    let unmounted = false;
    fetchSamples().then(
      (list) => {
        if (!unmounted) setSamples(list);
      },
      // The page works without them.
      (error: unknown) => console.warn(texts.errors.samples, error),
    );
    return () => {
      unmounted = true;
    };
  }, []);
  return samples;
}
