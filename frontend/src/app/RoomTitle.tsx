import { setTitle } from "../room/actions.ts";
import { MAX_TITLE } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import { DraftInput } from "../ui/DraftInput.tsx";
import { texts } from "./texts.ts";

/** The room's name, which everyone who may edit can change. */
export function RoomTitle() {
  const title = store.document.value?.title;
  if (title === undefined) return null;
  return (
    <DraftInput
      type="text"
      class="room-title wide-only"
      aria-label={texts.title}
      placeholder={texts.untitled}
      title={title === "" ? texts.title : title}
      maxLength={MAX_TITLE}
      value={title}
      disabled={!store.editable.value}
      onCommit={({ value }) => setTitle(value.trim())}
    />
  );
}
