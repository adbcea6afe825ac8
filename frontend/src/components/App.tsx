import { useEffect } from "preact/hooks";
import { followHistory, route } from "../routes.ts";
import { toasts } from "../store.ts";
import { followTheme } from "../theme.ts";
import { Editor } from "./Editor.tsx";
import { Landing } from "./Landing.tsx";
import { Password } from "./Password.tsx";
import { Toasts } from "./Toasts.tsx";
import { usePictureIntake } from "./intake.tsx";

export function App() {
  useEffect(followHistory, []);
  useEffect(followTheme, []);
  const intake = usePictureIntake();
  const now = route.value;
  return (
    <>
      {now.page === "room" ? (
        <Editor key={now.key.room + now.key.secret} room={now.key} intake={intake} />
      ) : intake.asked !== null ? (
        <Password message={intake.asked.message} say={intake.asked.say} />
      ) : (
        <Landing intake={intake} />
      )}
      {intake.over && (
        <div class="drop-veil" aria-hidden="true">
          {intake.veil}
        </div>
      )}
      <Toasts toasts={toasts.value} />
    </>
  );
}
