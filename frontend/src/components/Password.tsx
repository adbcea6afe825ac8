import { useState } from "preact/hooks";
import { texts } from "../texts.ts";
import { Mark } from "./icons.tsx";

const words = texts.password;

/** `say` answers what is wrong, or null. */
export function Password({
  message,
  say,
}: {
  readonly message: string;
  readonly say: (password: string) => Promise<string | null>;
}) {
  const [wrong, setWrong] = useState(message);
  const [busy, setBusy] = useState(false);
  const [typed, setTyped] = useState("");
  return (
    <main class="refused">
      <Mark size={40} />
      <h1>{words.title}</h1>
      <form
        class="password"
        onSubmit={(event) => {
          event.preventDefault();
          setBusy(true);
          void say(typed).then((answer) => {
            setBusy(false);
            if (answer !== null) setWrong(answer);
          });
        }}
      >
        <label>
          <span>{words.label}</span>
          <input
            class="field"
            type="password"
            autocomplete="current-password"
            autofocus
            value={typed}
            aria-describedby="password-wrong"
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="primary-button" disabled={busy || typed === ""}>
          {words.enter}
        </button>
        <p id="password-wrong" role="alert">
          {wrong}
        </p>
      </form>
    </main>
  );
}
