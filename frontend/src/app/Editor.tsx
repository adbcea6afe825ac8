import { useSignal } from "@preact/signals";
import type { Signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Canvas } from "../canvas/Canvas.tsx";
import { Toolbar } from "../canvas/Toolbar.tsx";
import { ConnectionBanner, ConnectionDot } from "../panels/Connection.tsx";
import { Dock } from "../panels/Dock.tsx";
import { Following } from "../panels/Following.tsx";
import { Share, TrialsDialog } from "../panels/later.ts";
import { NamePrompt } from "../panels/NamePrompt.tsx";
import { Panel } from "../panels/Panel.tsx";
import { Avatars } from "../panels/People.tsx";
import { texts as panelTexts } from "../panels/texts.ts";
import { Timeline } from "../panels/Timeline.tsx";
import { canRedo, canUndo, redo, undo } from "../room/actions.ts";
import type { RoomKey } from "../room/address.ts";
import { removeRecentRoom } from "../room/recent-rooms.ts";
import { joinRoom, submitPassword } from "../room/session.ts";
import * as store from "../room/store.ts";
import { discardTrials } from "../room/trials.ts";
import { clearUnsent } from "../room/unsent-edits.ts";
import { Password } from "../start/Password.tsx";
import { KeyboardIcon, Mark, PictureIcon, RedoIcon, ShareIcon, UndoIcon } from "../ui/icons.tsx";
import { lazy } from "../ui/lazy.tsx";
import { MenuItem } from "../ui/Menu.tsx";
import { MoreMenu } from "../ui/MoreMenu.tsx";
import { texts as ui } from "../ui/texts.ts";
import { useQuestionMark, useShortcuts } from "./keyboard.ts";
import { goToLanding } from "./routes.ts";
import { RoomTitle } from "./RoomTitle.tsx";
import { texts } from "./texts.ts";

const ShortcutsDialog = lazy(async () => (await import("./ShortcutsDialog.tsx")).ShortcutsDialog);

/** `busy`: another picture is being opened. */
export function Editor({ room, busy }: { readonly room: RoomKey; readonly busy: boolean }) {
  const shortcutsOpen = useSignal(false);
  const shareOpen = useSignal(false);
  const title = store.document.value?.title ?? "";
  useEffect(() => joinRoom(room), []);
  useEffect(() => discardTrials, []);
  useEffect(() => {
    window.document.title = `${title || room.room.slice(0, 6)} · ${ui.product}`;
  }, [title]);
  useShortcuts();
  useQuestionMark(() => (shortcutsOpen.value = true));
  const connection = store.connection.value;
  if (connection.state === "password") return <Password message={connection.message} submit={submitPassword} />;
  if (connection.state === "refused") return <Refused room={room} message={connection.message} />;
  return (
    <div class="editor" data-running={store.running.value}>
      <Header busy={busy} shareOpen={shareOpen} shortcutsOpen={shortcutsOpen} />
      <NamePrompt />
      <main class="work">
        <div class="work-scroll">
          <section class="stage">
            <ConnectionBanner />
            <Canvas />
            <Following />
          </section>
          <Timeline />
          <Panel />
        </div>
        <Dock />
      </main>
      <ShortcutsDialog open={shortcutsOpen} />
      <Share open={shareOpen} />
      <TrialsDialog />
      <p class="visually-hidden" role="status" data-testid="announcement">
        {store.announcement.value}
      </p>
    </div>
  );
}

function Header(props: {
  readonly busy: boolean;
  readonly shareOpen: Signal<boolean>;
  readonly shortcutsOpen: Signal<boolean>;
}) {
  return (
    <header>
      <h1 class="visually-hidden">{texts.editor}</h1>
      <div class="bar">
        <button type="button" class="brand" onClick={goToLanding} aria-label={texts.home}>
          <Mark />
          <span>{ui.product}</span>
        </button>
        <RoomTitle />
        <ConnectionDot />
        {!store.editable.value && (
          <span class="chip" title={panelTexts.status.viewOnlyHelp} data-testid="view-only">
            {panelTexts.status.viewOnly}
          </span>
        )}
        <span class="spring" />
        <Avatars />
        {store.editable.value && <UndoRedo />}
        <button
          type="button"
          class="quiet-button"
          aria-label={panelTexts.share}
          title={panelTexts.share}
          onClick={() => (props.shareOpen.value = true)}
        >
          <ShareIcon />
          <span class="wide-only">{panelTexts.share}</span>
        </button>
        <MoreMenu>
          <MenuItem disabled={props.busy} onClick={goToLanding}>
            <PictureIcon />
            {texts.newPicture}
          </MenuItem>
          <MenuItem onClick={() => (props.shortcutsOpen.value = true)} shortcut="?">
            <KeyboardIcon />
            {texts.shortcuts}
          </MenuItem>
        </MoreMenu>
      </div>
      <Toolbar />
    </header>
  );
}

function UndoRedo() {
  const history = store.room.value.history;
  const labels = texts.history;
  const titleOf = (verb: string, kind: string | null, shortcut: string) => {
    const what = kind === null ? undefined : labels.what[kind];
    return `${what === undefined ? verb : `${verb}: ${what}`} (${shortcut})`;
  };
  return (
    <>
      <button
        type="button"
        class="quiet-button"
        aria-label={labels.undo}
        title={titleOf(labels.undo, history.undo, "Ctrl+Z")}
        disabled={!canUndo()}
        onClick={undo}
      >
        <UndoIcon />
      </button>
      <button
        type="button"
        class="quiet-button"
        aria-label={labels.redo}
        title={titleOf(labels.redo, history.redo, "Ctrl+Shift+Z")}
        disabled={!canRedo()}
        onClick={redo}
      >
        <RedoIcon />
      </button>
    </>
  );
}

function Refused({ room, message }: { readonly room: RoomKey; readonly message: string }) {
  return (
    <main class="message-page">
      <Mark size={40} />
      <h1>{texts.refused.title}</h1>
      <p role="alert">{message}</p>
      <button
        type="button"
        class="primary-button"
        onClick={() => {
          removeRecentRoom(room.room);
          clearUnsent(room.room);
          goToLanding();
        }}
      >
        {texts.refused.home}
      </button>
    </main>
  );
}
