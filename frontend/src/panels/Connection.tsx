import { useEffect, useState } from "preact/hooks";
import { reconnectNow } from "../room/session.ts";
import { connection, pendingCount, room } from "../room/store.ts";
import { texts } from "./texts.ts";

const labels = texts.connection;

export function ConnectionDot() {
  const { state } = connection.value;
  const label = connectionLabel();
  return (
    <span
      class={`connection connection-${state}`}
      data-testid="connection"
      data-state={state}
      data-waiting={pendingCount.value}
      title={label}
    >
      <i />
      <span class="wide-only">{label}</span>
    </span>
  );
}

function connectionLabel(): string {
  const { state } = connection.value;
  if (state === "connecting") return labels.connecting;
  if (state !== "open") return labels.lost;
  const people = Object.values(room.value.people).filter(({ here }) => here).length;
  return people > 1 ? labels.people(people) : labels.open;
}

export function ConnectionBanner() {
  const now = connection.value;
  const retryAt = now.state === "lost" ? now.retryAt : null;
  const seconds = useSecondsUntil(retryAt);
  if (now.state !== "lost") return null;
  const edits = pendingCount.value;
  return (
    <div class="banner" data-testid="connection-banner">
      <p role="alert">
        <strong>{labels.lost}</strong> {labels.keepWorking}
      </p>
      <p class="banner-detail">
        {edits > 0 && <span>{labels.waiting(edits)} </span>}
        <span>{retryAt === null || seconds === 0 ? labels.retrying : labels.retryIn(seconds)}</span>
      </p>
      <button type="button" class="small-button" onClick={reconnectNow} disabled={retryAt === null}>
        {labels.retryNow}
      </button>
    </div>
  );
}

/** Counts down to a time in ms (`Date.now()`). */
function useSecondsUntil(time: number | null): number {
  const [seconds, setSeconds] = useState(0);
  useEffect(() => {
    if (time === null) return undefined;
    const count = () => setSeconds(Math.max(0, Math.ceil((time - Date.now()) / 1000)));
    count();
    const timer = setInterval(count, 250);
    return () => clearInterval(timer);
  }, [time]);
  return seconds;
}
