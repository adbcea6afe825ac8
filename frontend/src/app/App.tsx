import { useEffect } from "preact/hooks";
import { dismissToast, toasts } from "../room/store.ts";
import { usePictureOpener } from "../start/picture-opener.ts";
import type { PictureOpener } from "../start/picture-opener.ts";
import { Landing } from "../start/Landing.tsx";
import { Password } from "../start/Password.tsx";
import { SmallerPictureDialog } from "../start/SmallerPicture.tsx";
import { texts as startTexts } from "../start/texts.ts";
import { followTheme } from "../ui/theme.ts";
import { Toasts } from "../ui/Toasts.tsx";
import { DroppedFile } from "./DroppedFile.tsx";
import { Editor } from "./Editor.tsx";
import { followHistory, goToRoom, route } from "./routes.ts";

export function App() {
  useEffect(followHistory, []);
  useEffect(followTheme, []);
  const opener = usePictureOpener(goToRoom, () => route.value.page === "room");
  return (
    <>
      <Page opener={opener} />
      {opener.dragOver && (
        <div class="drop-veil" aria-hidden="true">
          {startTexts.landing.release}
        </div>
      )}
      {opener.dropped !== null && <DroppedFile dropped={opener.dropped} />}
      <SmallerPictureDialog />
      <Toasts toasts={toasts.value} dismiss={dismissToast} />
    </>
  );
}

function Page({ opener }: { readonly opener: PictureOpener }) {
  const now = route.value;
  if (now.page === "room") return <Editor key={now.key.room + now.key.secret} room={now.key} busy={opener.busy} />;
  const password = opener.passwordRequest;
  return password === null ? (
    <Landing opener={opener} enter={goToRoom} />
  ) : (
    <Password message={password.message} submit={password.submit} />
  );
}
