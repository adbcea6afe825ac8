import { useEffect, useState } from "preact/hooks";
import { fetchSamples } from "../api.ts";
import type { Sample } from "../api.ts";
import { colourOf } from "../draw.ts";
import { drawing } from "../drawing.ts";
import { forget, recent } from "../recent.ts";
import { address, base, goTo } from "../routes.ts";
import { texts } from "../texts.ts";
import { DrawingView, WordsForm } from "./Drawing.tsx";
import type { Intake } from "./intake.tsx";
import { CloseIcon, Mark, PauseIcon, PictureIcon, PlayIcon } from "./icons.tsx";
import { MoreMenu } from "./Menu.tsx";

const { landing } = texts;

/** By sample: how it was dragged, recorded from the page itself by the browser tests. */
const animations: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(
    import.meta.glob<string>("../animations/*.webp", { eager: true, query: "?url", import: "default" }),
  ).map(([path, address]) => [path.replace(/^.*\/|\.webp$/g, ""), base + address]),
);

export function Landing({ intake }: { readonly intake: Intake }) {
  const samples = useSamples();
  const credits = [...new Set((samples ?? []).map((sample) => sample.credit).filter(Boolean))].join("; ");
  useEffect(() => {
    window.document.title = texts.name;
  }, []);
  return (
    <div class="landing">
      <header class="landing-head">
        <span class="brand">
          <Mark />
          {texts.name}
        </span>
        <span class="spring" />
        <MoreMenu />
      </header>
      <main>
        <section class="hero">
          <div class="hero-words">
            <h1>{landing.title}</h1>
            <p>{landing.claim}</p>
          </div>
          {drawing.value === null ? (
            <Show samples={samples ?? []} intake={intake} />
          ) : (
            <DrawingView drawing={drawing.value} intake={intake} />
          )}
          <div class="ways">
            <DropZone intake={intake} />
            <WordsForm intake={intake} />
          </div>
        </section>
        {recent.value.length > 0 && <RecentRooms />}
        {samples !== null && samples.length > 0 && (
          <section class="gallery" aria-labelledby="samples">
            <h2 id="samples">{landing.samples}</h2>
            <ul>
              {samples.map((sample) => (
                <li key={sample.name}>
                  <SampleCard sample={sample} disabled={intake.busy} open={() => intake.openSample(sample)} />
                </li>
              ))}
            </ul>
            {credits && <p class="credit">{landing.sampleCredit(credits)}</p>}
          </section>
        )}
      </main>
    </div>
  );
}

function DropZone({ intake }: { readonly intake: Intake }) {
  return (
    <label class={`drop-zone ${intake.over ? "is-over" : ""} ${intake.busy ? "is-busy" : ""}`}>
      <input
        type="file"
        class="visually-hidden"
        accept="image/png,image/jpeg,image/webp"
        data-testid="picture-file"
        disabled={intake.busy}
        aria-label={landing.choose}
        onChange={(event) => {
          const file = event.currentTarget.files?.[0];
          event.currentTarget.value = "";
          if (file) intake.open(file);
        }}
      />
      <span class="drop-art">
        <PictureIcon />
      </span>
      {intake.busy ? (
        <strong role="status">{landing.uploading}</strong>
      ) : (
        <>
          <strong class="for-mouse">{landing.drop}</strong>
          <span class="for-mouse">
            {landing.dropDetail} <span class="link">{landing.choose}</span>
          </span>
          <strong class="for-touch">{landing.open}</strong>
          <span class="for-touch">{landing.openDetail}</span>
          <small>{landing.limits}</small>
        </>
      )}
    </label>
  );
}

/** A sample being dragged, over and over, as the page recorded it; it can be held still, and starts so where motion is not wanted. */
function Show({ samples, intake }: { readonly samples: readonly Sample[]; readonly intake: Intake }) {
  const [still, setStill] = useState(() => matchMedia("(prefers-reduced-motion: reduce)").matches);
  const sample = samples.find(({ name }) => animations[name] !== undefined);
  if (sample === undefined) return <Motif />;
  return (
    <figure class="show" data-testid="show">
      {still ? (
        <SamplePicture sample={sample} />
      ) : (
        <img src={animations[sample.name]} alt={landing.showing(sample.title)} />
      )}
      <figcaption>
        <button type="button" class="small-button" disabled={intake.busy} onClick={() => intake.openSample(sample)}>
          {landing.tryThis}
        </button>
        <button
          type="button"
          class="icon-button"
          aria-pressed={still}
          aria-label={landing.holdStill}
          title={landing.holdStill}
          onClick={() => setStill(!still)}
        >
          {still ? <PlayIcon /> : <PauseIcon />}
        </button>
      </figcaption>
    </figure>
  );
}

/** What the tool does, in one small movement. */
function Motif() {
  return (
    <svg class="motif" viewBox="0 0 240 92" aria-hidden="true">
      <path class="motif-way" d="M28 66C84 92 128 6 200 26" />
      <circle class="motif-ring" cx="200" cy="26" r="11" />
      <circle class="motif-pip" cx="200" cy="26" r="3" />
      <g class="motif-dot">
        <circle r="13" />
        <text y="4.5" text-anchor="middle">
          1
        </text>
      </g>
    </svg>
  );
}

function SampleCard({
  sample,
  disabled,
  open,
}: {
  readonly sample: Sample;
  readonly disabled: boolean;
  readonly open: () => void;
}) {
  return (
    <button type="button" class="sample" disabled={disabled} aria-label={landing.sample(sample.title)} onClick={open}>
      <SamplePicture sample={sample} />
      <span class="sample-title">{sample.title}</span>
    </button>
  );
}

function SamplePicture({ sample }: { readonly sample: Sample }) {
  const [size, setSize] = useState<{ readonly width: number; readonly height: number } | null>(null);
  return (
    <span class="sample-picture">
      <img
        src={base + sample.picture}
        alt=""
        onLoad={(event) =>
          setSize({ width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight })
        }
      />
      {size && (
        <svg viewBox={`0 0 ${size.width} ${size.height}`} aria-hidden="true">
          {sample.drags.map(({ handle, target }, index) => (
            <g key={index} style={{ color: colourOf(index + 1) }}>
              <line class="sample-way" x1={handle[0]} y1={handle[1]} x2={target[0]} y2={target[1]} />
              <circle
                class="sample-handle"
                cx={handle[0]}
                cy={handle[1]}
                r={Math.max(size.width, size.height) * 0.026}
              />
              <circle
                class="sample-target"
                cx={target[0]}
                cy={target[1]}
                r={Math.max(size.width, size.height) * 0.026}
              />
            </g>
          ))}
        </svg>
      )}
    </span>
  );
}

function RecentRooms() {
  return (
    <section class="recent" aria-labelledby="recent">
      <h2 id="recent">{landing.recent}</h2>
      <ul>
        {recent.value.map((entry) => (
          <li key={entry.room}>
            <a
              href={address(entry)}
              aria-label={landing.reopen(new Date(entry.seen).toLocaleString())}
              title={new Date(entry.seen).toLocaleString()}
              onClick={(event) => {
                if (event.metaKey || event.ctrlKey || event.shiftKey) return;
                event.preventDefault();
                goTo({ page: "room", key: { room: entry.room, secret: entry.secret } });
              }}
            >
              {entry.thumbnail ? <img src={entry.thumbnail} alt="" /> : <PictureIcon />}
            </a>
            <button type="button" class="icon-button" aria-label={landing.forget} onClick={() => forget(entry.room)}>
              <CloseIcon />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Null until they are known; empty where there are none. */
function useSamples(): readonly Sample[] | null {
  const [samples, setSamples] = useState<readonly Sample[] | null>(null);
  useEffect(() => {
    let gone = false;
    fetchSamples().then(
      (list) => !gone && setSamples(list),
      (error: unknown) => {
        // The page works without them.
        console.warn(texts.errors.samples, error);
        if (!gone) setSamples([]);
      },
    );
    return () => {
      gone = true;
    };
  }, []);
  return samples;
}
