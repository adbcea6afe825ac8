import { useSignal } from "@preact/signals";
import { ChevronIcon } from "../ui/icons.tsx";
import { Activities } from "./later.ts";
import { texts } from "./texts.ts";

export function ActivityList() {
  const open = useSignal(false);
  return (
    <details class="activity settings" onToggle={(event) => (open.value = event.currentTarget.open)}>
      <summary>
        <ChevronIcon />
        {texts.activity}
      </summary>
      {/* While it is closed, every change would lay it out again. */}
      {open.value && <Activities />}
    </details>
  );
}
