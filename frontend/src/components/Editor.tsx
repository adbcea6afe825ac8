import { useEffect } from "preact/hooks";
import { useSignal } from "@preact/signals";
import type { Key } from "../api.ts";
import { forget } from "../recent.ts";
import { goTo } from "../routes.ts";
import { canRedo, canUndo, enter, redo, sayPassword, undo } from "../session.ts";
import * as store from "../store.ts";
import { texts } from "../texts.ts";
import { dropAll } from "../unsent.ts";
import { Canvas } from "./Canvas.tsx";
import { ConnectionBanner, ConnectionDot } from "./Connection.tsx";
import { Dock } from "./Dock.tsx";
import { KeyboardIcon, Mark, PictureIcon, RedoIcon, ShareIcon, UndoIcon } from "./icons.tsx";
import type { Intake } from "./intake.tsx";
import { MenuItem, MoreMenu } from "./Menu.tsx";
import { Panel } from "./Panel.tsx";
import { Password } from "./Password.tsx";
import { Faces } from "./People.tsx";
import { Share } from "./Share.tsx";
import { Shortcuts, useKeys } from "./Shortcuts.tsx";
import { Timeline } from "./Timeline.tsx";
import { Toolbar } from "./Toolbar.tsx";

export function Editor({ room, intake }: { readonly room: Key; readonly intake: Intake }) {
  const sheet = useSignal(false);
  const share = useSignal(false);
  useEffect(() => enter(room), []);
  useEffect(() => {
    window.document.title = `${texts.name} · ${room.room.slice(0, 6)}`;
  }, []);
  useKeys();
  const connection = store.connection.value;
  if (connection.state === "password") return <Password message={connection.message} say={sayPassword} />;
  if (connection.state === "refused") return <Refused room={room} message={connection.message} />;
  return (
    <div class="editor" data-running={store.running.value}>
      <header>
        <h1 class="visually-hidden">{texts.editor.title}</h1>
        <div class="bar">
          <button type="button" class="brand" onClick={() => goTo({ page: "landing" })} aria-label={texts.editor.home}>
            <Mark />
            <span>{texts.name}</span>
          </button>
          <ConnectionDot />
          {!store.editable.value && (
            <span class="chip" title={texts.people.viewingHelp} data-testid="viewing">
              {texts.people.viewing}
            </span>
          )}
          <span class="spring" />
          <Faces />
          {store.editable.value && <UndoRedo />}
          <button
            type="button"
            class="quiet-button"
            aria-label={texts.share.title}
            title={texts.share.title}
            onClick={() => (share.value = true)}
          >
            <ShareIcon />
            <span class="wide-only">{texts.share.title}</span>
          </button>
          <MoreMenu>
            <MenuItem disabled={intake.busy} onClick={() => goTo({ page: "landing" })}>
              <PictureIcon />
              {texts.editor.newPicture}
            </MenuItem>
            <MenuItem onClick={() => (sheet.value = true)} keys="?">
              <KeyboardIcon />
              {texts.editor.shortcuts}
            </MenuItem>
          </MoreMenu>
        </div>
        <Toolbar />
      </header>
      <main class="work">
        <div class="work-scroll">
          <section class="stage">
            <ConnectionBanner />
            <Canvas />
          </section>
          <Timeline />
          <Panel />
        </div>
        <Dock />
      </main>
      <Shortcuts open={sheet} />
      <Share open={share} />
      <p class="visually-hidden" role="status" data-testid="announcement">
        {store.announcement.value}
      </p>
    </div>
  );
}

function UndoRedo() {
  const { undo: back, redo: again } = store.room.value.history;
  const words = texts.history;
  const name = (verb: string, what: string | null) => words.of(verb, what === null ? undefined : words.what[what]);
  return (
    <>
      <button
        type="button"
        class="quiet-button"
        aria-label={words.undo}
        title={`${name(words.undo, back)} (Ctrl+Z)`}
        disabled={!canUndo()}
        onClick={undo}
      >
        <UndoIcon />
      </button>
      <button
        type="button"
        class="quiet-button"
        aria-label={words.redo}
        title={`${name(words.redo, again)} (Ctrl+Shift+Z)`}
        disabled={!canRedo()}
        onClick={redo}
      >
        <RedoIcon />
      </button>
    </>
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
          dropAll(room.room);
          goTo({ page: "landing" });
        }}
      >
        {texts.refused.home}
      </button>
    </main>
  );
}
