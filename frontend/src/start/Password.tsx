import { useState } from "preact/hooks";
import { Mark } from "../ui/icons.tsx";
import { texts } from "./texts.ts";

const labels = texts.password;

/** `submit` resolves to the error, or null. */
export function Password(props: {
  readonly message: string;
  readonly submit: (password: string) => Promise<string | null>;
}) {
  const [error, setError] = useState(props.message);
  const [busy, setBusy] = useState(false);
  const [password, setPassword] = useState("");
  const submit = async () => {
    setBusy(true);
    const answer = await props.submit(password);
    setBusy(false);
    if (answer !== null) setError(answer);
  };
  return (
    <main class="message-page">
      <Mark size={40} />
      <h1>{labels.title}</h1>
      <form
        class="password"
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <label>
          <span>{labels.label}</span>
          <input
            class="field"
            type="password"
            autocomplete="current-password"
            autofocus
            value={password}
            aria-describedby="password-error"
            onInput={(event) => setPassword(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="primary-button" disabled={busy || password === ""}>
          {labels.submit}
        </button>
        <p id="password-error" role="alert">
          {error}
        </p>
      </form>
    </main>
  );
}
