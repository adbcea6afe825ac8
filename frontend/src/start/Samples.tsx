import { useState } from "preact/hooks";
import { base } from "../room/address.ts";
import type { Size } from "../room/geometry.ts";
import { pointColour } from "../ui/colours.ts";
import { PauseIcon, PlayIcon } from "../ui/icons.tsx";
import type { Sample } from "./api.ts";
import type { PictureOpener } from "./picture-opener.ts";
import { texts } from "./texts.ts";

const labels = texts.landing;

/** Radius of a point on a sample's picture, in shares of its longest side. */
const POINT_RADIUS = 0.026;

/** Recordings of samples being dragged, by the sample's name; the browser tests make them. */
const ANIMATIONS: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(
    import.meta.glob<string>("../animations/*.webp", { eager: true, query: "?url", import: "default" }),
  ).map(([path, url]) => [path.replace(/^.*\/|\.webp$/g, ""), url]),
);

/** A recording of a sample being dragged. It can be paused, and starts paused where motion is not wanted. */
export function Showcase({ samples, opener }: { readonly samples: readonly Sample[]; readonly opener: PictureOpener }) {
  const [paused, setPaused] = useState(() => matchMedia("(prefers-reduced-motion: reduce)").matches);
  const sample = samples.find(({ name }) => ANIMATIONS[name] !== undefined);
  if (sample === undefined) return <Motif />;
  return (
    <figure class="showcase" data-testid="showcase">
      {paused ? (
        <SamplePicture sample={sample} />
      ) : (
        <img src={ANIMATIONS[sample.name]} alt={labels.animation(sample.title)} />
      )}
      <figcaption>
        <button type="button" class="small-button" disabled={opener.busy} onClick={() => opener.openSample(sample)}>
          {labels.tryThis}
        </button>
        <button
          type="button"
          class="icon-button"
          aria-pressed={paused}
          aria-label={labels.pause}
          title={labels.pause}
          onClick={() => setPaused(!paused)}
        >
          {paused ? <PlayIcon /> : <PauseIcon />}
        </button>
      </figcaption>
    </figure>
  );
}

/** A small animation of one point, for when there is no recording. */
function Motif() {
  return (
    <svg class="motif" viewBox="0 0 240 92" aria-hidden="true">
      <path class="motif-path" d="M28 66C84 92 128 6 200 26" />
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

export function Gallery({ samples, opener }: { readonly samples: readonly Sample[]; readonly opener: PictureOpener }) {
  const credits = [...new Set(samples.map(({ credit }) => credit).filter(Boolean))].join("; ");
  return (
    <section class="gallery" aria-labelledby="samples">
      <h2 id="samples">{labels.samples}</h2>
      <ul>
        {samples.map((sample) => (
          <li key={sample.name}>
            <button
              type="button"
              class="sample"
              disabled={opener.busy}
              aria-label={labels.openSample(sample.title)}
              onClick={() => opener.openSample(sample)}
            >
              <SamplePicture sample={sample} />
              <span class="sample-title">{sample.title}</span>
            </button>
          </li>
        ))}
      </ul>
      {credits && <p class="credit">{labels.sampleCredit(credits)}</p>}
    </section>
  );
}

/** A sample with its drags drawn over it. */
function SamplePicture({ sample }: { readonly sample: Sample }) {
  const [size, setSize] = useState<Size | null>(null);
  return (
    <span class="sample-picture">
      <img
        src={base + sample.picture}
        alt=""
        onLoad={({ currentTarget: { naturalWidth: width, naturalHeight: height } }) => setSize({ width, height })}
      />
      {size && <SampleDrags drags={sample.drags} size={size} />}
    </span>
  );
}

function SampleDrags(props: { readonly drags: Sample["drags"]; readonly size: Size }) {
  const { width, height } = props.size;
  const radius = Math.max(width, height) * POINT_RADIUS;
  return (
    <svg viewBox={`0 0 ${width} ${height}`} aria-hidden="true">
      {props.drags.map(({ handle, target }, index) => (
        <g key={index} style={{ color: pointColour(index + 1) }}>
          <line class="sample-line" x1={handle[0]} y1={handle[1]} x2={target[0]} y2={target[1]} />
          <circle class="sample-handle" cx={handle[0]} cy={handle[1]} r={radius} />
          <circle class="sample-target" cx={target[0]} cy={target[1]} r={radius} />
        </g>
      ))}
    </svg>
  );
}
