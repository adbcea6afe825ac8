import { useEffect } from "preact/hooks";
import { dismissToast, toasts } from "../room/store.ts";
import { usePictureOpener } from "../start/picture-opener.ts";
import type { PictureOpener } from "../start/picture-opener.ts";
import { Password } from "../start/Password.tsx";
import { SmallerPictureDialog } from "../start/SmallerPicture.tsx";
import { texts as startTexts } from "../start/texts.ts";
import { lazy } from "../ui/lazy.tsx";
import { followTheme } from "../ui/theme.ts";
import { Toasts } from "../ui/Toasts.tsx";
import { DroppedFile } from "./DroppedFile.tsx";
import { followHistory, goToRoom, route } from "./routes.ts";

const importEditor = () => import("./Editor.tsx");
const importLanding = () => import("../start/Landing.tsx");
const Editor = lazy(async () => (await importEditor()).Editor);
const Landing = lazy(async () => (await importLanding()).Landing);

/** Milliseconds after which the page that is not shown is loaded too, so that it opens without a delay. */
const PRELOAD_DELAY = 1000;

export function App() {
  useEffect(preloadPages, []);
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
      {opener.dropped !== null && <DroppedFile key={opener.dropped.id} dropped={opener.dropped} />}
      <SmallerPictureDialog />
      <Toasts toasts={toasts.value} dismiss={dismissToast} />
    </>
  );
}

function preloadPages(): () => void {
  const timer = setTimeout(() => {
    // One that fails is retried when it is opened.
    Promise.all([importEditor(), importLanding()]).catch(() => undefined);
  }, PRELOAD_DELAY);
  return () => clearTimeout(timer);
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
