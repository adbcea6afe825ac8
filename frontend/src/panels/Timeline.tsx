import { useEffect, useRef, useState } from "preact/hooks";
import { canSeek, seek } from "../room/actions.ts";
import type { Moment } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { PauseIcon, PlayIcon } from "../ui/icons.tsx";
import { Branches } from "./later.ts";
import { lookAt } from "./look-at.ts";
import { texts } from "./texts.ts";
import { Thumbnail } from "./Thumbnail.tsx";

const labels = texts.timeline;

/** Width of a picture in the strip, in CSS pixels. */
const FRAME_WIDTH = 44;
/** Milliseconds each picture is shown while playing. */
const FRAME_TIME = 110;

/** The stored iterations below the canvas: a filmstrip to scrub along and to continue from anywhere. */
export function Timeline() {
  const moments = store.timelinePath.value.filter(({ thumbnail }) => thumbnail);
  const here = store.room.value.moment;
  const scrubbed = store.scrubbed.value;
  const found = moments.findIndex(({ id }) => id === (scrubbed?.id ?? here));
  const at = found < 0 ? moments.length - 1 : found;
  const [playing, setPlaying] = usePlayback(moments, at);
  const current = moments[at];
  if (moments.length < 2 || current === undefined) return <NoTimeline />;
  return (
    <section class="timeline" aria-label={labels.title} data-testid="timeline" data-moments={moments.length}>
      <PlayButton
        playing={playing}
        onClick={() => {
          if (playing || at < moments.length - 1) setPlaying(!playing);
          else void lookAt(moments[0]?.id).then(() => setPlaying(true));
        }}
      />
      <div class="filmstrip-column">
        <div class="filmstrip">
          <Frames moments={moments} />
          <input
            type="range"
            class="filmstrip-scrubber"
            aria-label={labels.browse}
            aria-valuetext={labels.moment(current.iteration)}
            min={0}
            max={moments.length - 1}
            step={1}
            value={at}
            onInput={(event) => {
              setPlaying(false);
              void lookAt(moments[event.currentTarget.valueAsNumber]?.id);
            }}
          />
        </div>
      </div>
      <Branches here={here ?? current.id} />
      <Caption moment={current} elsewhere={scrubbed !== null && scrubbed.id !== here} stop={() => setPlaying(false)} />
    </section>
  );
}

/** Takes the room of the timeline beforehand, so that the picture keeps its place and its size when a run begins. */
function NoTimeline() {
  if (store.picture.value === null) return null;
  return <p class="timeline timeline-empty">{labels.empty}</p>;
}

/** Shows one moment after the other while playing, up to the last. */
function usePlayback(moments: readonly Moment[], at: number): [boolean, (playing: boolean) => void] {
  const [playing, setPlaying] = useState(false);
  useEffect(() => {
    if (!playing) return undefined;
    if (at >= moments.length - 1) {
      setPlaying(false);
      return undefined;
    }
    const timer = setTimeout(() => void lookAt(moments[at + 1]?.id), FRAME_TIME);
    return () => clearTimeout(timer);
  }, [playing, at, moments.length]);
  return [playing, setPlaying];
}

function PlayButton({ playing, onClick }: { readonly playing: boolean; readonly onClick: () => void }) {
  const name = playing ? labels.pause : labels.play;
  return (
    <button type="button" class="quiet-button" aria-label={name} title={name} onClick={onClick}>
      {playing ? <PauseIcon /> : <PlayIcon />}
    </button>
  );
}

function Caption(props: { readonly moment: Moment; readonly elsewhere: boolean; readonly stop: () => void }) {
  const { moment, elsewhere, stop } = props;
  return (
    <p class="filmstrip-caption">
      <span>{labels.moment(moment.iteration)}</span>
      {elsewhere && canSeek() && (
        <button type="button" class="small-button is-strong" onClick={() => seek(moment.id)}>
          {labels.seek}
        </button>
      )}
      {elsewhere && (
        <button
          type="button"
          class="small-button"
          aria-label={labels.backHelp}
          title={labels.backHelp}
          onClick={() => {
            stop();
            store.scrubbed.value = null;
          }}
        >
          {labels.back}
        </button>
      )}
    </p>
  );
}

/** As many pictures as fit, each about above its place on the scrubber; some are repeated or left out. */
function Frames({ moments }: { readonly moments: readonly Moment[] }) {
  const strip = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const element = strip.current;
    if (element === null) return undefined;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const count = Math.round(width / FRAME_WIDTH);
  const step = (moments.length - 1) / Math.max(1, count - 1);
  const frames = Array.from({ length: count }, (_, index) => moments[Math.round(index * step)]);
  return (
    <div class="filmstrip-frames" aria-hidden="true" ref={strip}>
      {frames.map((moment, index) => moment && <Thumbnail key={index} id={moment.id} />)}
    </div>
  );
}
