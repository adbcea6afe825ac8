import { useEffect } from "preact/hooks";
import { dismissToast, toasts } from "../room/store.ts";
import { useIntake } from "../start/intake.ts";
import type { Intake } from "../start/intake.ts";
import { Landing } from "../start/Landing.tsx";
import { Password } from "../start/Password.tsx";
import { texts as startTexts } from "../start/texts.ts";
import { followTheme } from "../ui/theme.ts";
import { Toasts } from "../ui/Toasts.tsx";
import { Editor } from "./Editor.tsx";
import { followHistory, goToRoom, route } from "./routes.ts";

export function App() {
  useEffect(followHistory, []);
  useEffect(followTheme, []);
  const intake = useIntake(goToRoom);
  return (
    <>
      <Page intake={intake} />
      {intake.dragOver && (
        <div class="drop-veil" aria-hidden="true">
          {startTexts.landing.release}
        </div>
      )}
      <Toasts toasts={toasts.value} dismiss={dismissToast} />
    </>
  );
}

function Page({ intake }: { readonly intake: Intake }) {
  const now = route.value;
  if (now.page === "room") return <Editor key={now.key.room + now.key.secret} room={now.key} busy={intake.busy} />;
  const password = intake.passwordRequest;
  return password === null ? (
    <Landing intake={intake} enter={goToRoom} />
  ) : (
    <Password message={password.message} submit={password.submit} />
  );
}
