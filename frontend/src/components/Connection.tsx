import { useEffect, useState } from "preact/hooks";
import { retry } from "../session.ts";
import { connection, room, waitingEdits } from "../store.ts";
import { texts } from "../texts.ts";

const words = texts.connection;

export function ConnectionDot() {
  const { state } = connection.value;
  const people = Object.values(room.value.people).filter(({ here }) => here).length;
  const label =
    state === "open"
      ? people > 1
        ? words.here(people)
        : words.open
      : state === "connecting"
        ? words.connecting
        : words.lost;
  return (
    <span
      class={`connection connection-${state}`}
      data-testid="connection"
      data-state={state}
      data-waiting={waitingEdits.value}
      title={label}
    >
      <i />
      <span class="wide-only">{label}</span>
    </span>
  );
}

export function ConnectionBanner() {
  const now = connection.value;
  const [seconds, setSeconds] = useState(0);
  const retryAt = now.state === "lost" ? now.retryAt : null;
  useEffect(() => {
    if (retryAt === null) return;
    const count = () => setSeconds(Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)));
    count();
    const timer = setInterval(count, 250);
    return () => clearInterval(timer);
  }, [retryAt]);
  if (now.state !== "lost") return null;
  const edits = waitingEdits.value;
  return (
    <div class="banner" data-testid="connection-banner">
      <p role="alert">
        <strong>{words.lost}</strong> {words.kept}
      </p>
      <p class="banner-detail">
        {edits > 0 && <span>{words.waiting(edits)} </span>}
        <span>{retryAt === null || seconds === 0 ? words.trying : words.again(seconds)}</span>
      </p>
      <button type="button" class="small-button" onClick={retry} disabled={retryAt === null}>
        {words.now}
      </button>
    </div>
  );
}
