import { useEffect, useRef, useState } from "preact/hooks";
import { momentPicture, seek } from "../session.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { PauseIcon, PlayIcon } from "./icons.tsx";

const words = texts.timeline;
/** Width of a picture of the strip, in CSS pixels. */
const FRAME = 44;
/** Milliseconds a picture is shown while playing. */
const SHOWN = 110;

/** The kept iterations under the canvas: a strip of film to scrub along, and to go on from anywhere. */
export function Timeline() {
  const moments = store.line.value.filter(({ thumbnail }) => thumbnail);
  const [playing, setPlaying] = useState(false);
  const strip = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const shown = moments.length >= 2;
  useEffect(() => {
    const element = strip.current;
    if (element === null) return undefined;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, [shown]);
  const here = store.room.value.moment;
  const looked = store.scrub.value;
  const found = moments.findIndex(({ id }) => id === (looked?.id ?? here));
  const at = found < 0 ? moments.length - 1 : found;
  useEffect(() => {
    if (!playing) return undefined;
    if (at >= moments.length - 1) {
      setPlaying(false);
      return undefined;
    }
    const timer = setTimeout(() => look(moments[at + 1]?.id), SHOWN);
    return () => clearTimeout(timer);
  }, [playing, at, moments.length]);
  const current = moments[at];
  if (!shown || current === undefined) return null;
  // As many as there is room for, each about above its place on the scrubber: some twice, or not all.
  const room = Math.round(width / FRAME);
  const step = (moments.length - 1) / Math.max(1, room - 1);
  const frames = Array.from({ length: room }, (_, index) => moments[Math.round(index * step)] ?? current);
  const elsewhere = looked !== null && looked.id !== here;
  return (
    <section class="timeline" aria-label={words.title} data-testid="timeline" data-moments={moments.length}>
      <button
        type="button"
        class="quiet-button"
        aria-label={playing ? words.pause : words.play}
        title={playing ? words.pause : words.play}
        onClick={() => {
          if (!playing && at >= moments.length - 1) look(moments[0]?.id);
          setPlaying(!playing);
        }}
      >
        {playing ? <PauseIcon /> : <PlayIcon />}
      </button>
      <div class="film-column">
        <div class="film" ref={strip}>
          <div class="film-frames" aria-hidden="true">
            {frames.map((moment, index) => (
              <Thumbnail key={index} id={moment.id} />
            ))}
          </div>
          <input
            type="range"
            class="film-scrubber"
            aria-label={words.look}
            aria-valuetext={words.moment(current.iteration)}
            min={0}
            max={moments.length - 1}
            step={1}
            value={at}
            onInput={(event) => {
              setPlaying(false);
              look(moments[event.currentTarget.valueAsNumber]?.id);
            }}
          />
        </div>
        <Branches here={here ?? current.id} />
      </div>
      <p class="film-words">
        <span>{words.moment(current.iteration)}</span>
        {elsewhere && store.editable.value && store.connected.value && (
          <button type="button" class="small-button is-strong" onClick={() => seek(current.id)}>
            {words.go}
          </button>
        )}
        {elsewhere && (
          <button
            type="button"
            class="small-button"
            onClick={() => {
              setPlaying(false);
              store.scrub.value = null;
            }}
          >
            {words.back}
          </button>
        )}
      </p>
    </section>
  );
}

/** Every way that was gone, as a tree: a row each, from where it left another to where it ends. To read, and to go there. */
function Branches({ here }: { readonly here: number }) {
  const branches = store.branches.value;
  if (branches.length < 2) return null;
  const most = Math.max(1, ...branches.map(({ moments }) => moments.at(-1)?.iteration ?? 0));
  const percent = (iteration: number) => (iteration / most) * 100;
  const now = branches.findIndex(({ moments }) => moments.some(({ id }) => id === here));
  return (
    <ol class="branches" aria-label={words.branches} data-testid="branches">
      {branches.map(({ from, moments }, index) => {
        const tip = moments.at(-1) ?? moments[0];
        const begins = percent(from?.iteration ?? 0);
        const at = moments.find(({ id }) => id === here);
        const name = words.branch(index + 1, from?.iteration ?? 0, tip.iteration);
        return (
          <li key={moments[0].id}>
            <button
              type="button"
              class={`branch ${index === now ? "is-now" : ""}`}
              aria-label={index === now ? words.branchNow(name) : name}
              aria-current={index === now}
              title={name}
              onClick={() => (store.editable.value && store.connected.value ? seek(tip.id) : look(tip.id))}
            >
              <span class="branch-tree" aria-hidden="true">
                {from !== null && (
                  <i class="branch-stem" style={{ insetInlineStart: `${begins}%`, "--up": index - from.branch }} />
                )}
                <i
                  class="branch-way"
                  style={{
                    insetInlineStart: `${begins}%`,
                    width: `${Math.max(0.5, percent(tip.iteration) - begins)}%`,
                  }}
                />
                <i class="branch-tip" style={{ insetInlineStart: `${percent(tip.iteration)}%` }} />
                {at && <i class="branch-here" style={{ insetInlineStart: `${percent(at.iteration)}%` }} />}
              </span>
              <span class="branch-words">{words.short(tip.iteration)}</span>
            </button>
          </li>
        );
      })}
    </ol>
  );
}

let wanted: number | undefined;

/** Shows a moment on the canvas, to this person alone. */
function look(id: number | undefined): void {
  wanted = id;
  if (id === undefined) return;
  momentPicture(id).then(
    (bitmap) => {
      if (wanted === id) store.scrub.value = { id, bitmap };
    },
    // It has been thinned away meanwhile; the next index says so.
    () => undefined,
  );
}

function Thumbnail({ id }: { readonly id: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    let gone = false;
    momentPicture(id).then(
      (bitmap) => {
        const element = canvas.current;
        if (gone || element === null) return;
        const side = FRAME * 2;
        const scale = side / Math.min(bitmap.width, bitmap.height);
        element.width = element.height = side;
        const [width, height] = [bitmap.width * scale, bitmap.height * scale];
        element.getContext("2d")?.drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
      },
      () => undefined,
    );
    return () => {
      gone = true;
    };
  }, [id]);
  return <canvas ref={canvas} />;
}
