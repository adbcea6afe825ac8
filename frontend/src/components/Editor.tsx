import { useEffect } from "preact/hooks";
import { useSignal } from "@preact/signals";
import type { Key } from "../api.ts";
import { forget } from "../recent.ts";
import { goTo } from "../routes.ts";
import { enter } from "../session.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { Canvas } from "./Canvas.tsx";
import { ConnectionBanner, ConnectionDot } from "./Connection.tsx";
import { Dock } from "./Dock.tsx";
import { KeyboardIcon, Mark, PictureIcon } from "./icons.tsx";
import type { Intake } from "./intake.tsx";
import { MenuItem, MoreMenu } from "./Menu.tsx";
import { Panel } from "./Panel.tsx";
import { Shortcuts, useKeys } from "./Shortcuts.tsx";
import { Toolbar } from "./Toolbar.tsx";

export function Editor({ room, intake }: { readonly room: Key; readonly intake: Intake }) {
  const sheet = useSignal(false);
  useEffect(() => enter(room), []);
  useEffect(() => {
    window.document.title = `${texts.name} · ${room.room.slice(0, 6)}`;
  }, []);
  useKeys(sheet);
  const connection = store.connection.value;
  if (connection.state === "refused") return <Refused room={room} message={connection.message} />;
  return (
    <div class="editor" data-running={store.running.value}>
      <h1 class="visually-hidden">{texts.editor.title}</h1>
      <header class="bar">
        <button type="button" class="brand" onClick={() => goTo({ page: "landing" })} aria-label={texts.editor.home}>
          <Mark />
          <span>{texts.name}</span>
        </button>
        <ConnectionDot />
        <span class="spring" />
        <MoreMenu>
          <MenuItem disabled={intake.busy} onClick={() => goTo({ page: "landing" })}>
            <PictureIcon />
            {texts.editor.newPicture}
          </MenuItem>
          <MenuItem onClick={() => (sheet.value = true)}>
            <KeyboardIcon />
            {texts.editor.shortcuts}
            <kbd class="keys-only">?</kbd>
          </MenuItem>
        </MoreMenu>
      </header>
      <Toolbar />
      <main class="work">
        <section class="stage">
          <ConnectionBanner />
          <Canvas />
        </section>
        <Panel />
        <Dock />
      </main>
      <Shortcuts open={sheet} />
      <p class="visually-hidden" role="status" data-testid="announcement">
        {store.announcement.value}
      </p>
    </div>
  );
}

function Refused({ room, message }: { readonly room: Key; readonly message: string }) {
  return (
    <main class="refused">
      <Mark size={40} />
      <h1>{texts.refused.title}</h1>
      <p role="alert">{message}</p>
      <button
        type="button"
        class="primary-button"
        onClick={() => {
          forget(room.room);
          goTo({ page: "landing" });
        }}
      >
        {texts.refused.home}
      </button>
    </main>
  );
}
