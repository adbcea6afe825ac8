import type { Signal } from "@preact/signals";
import { Dialog } from "../ui/Dialog.tsx";
import { shortcutGroups } from "./shortcut-texts.ts";
import { texts } from "./texts.ts";

/** The list of shortcuts. */
export function ShortcutsDialog({ open }: { readonly open: Signal<boolean> }) {
  return (
    <Dialog open={open} title={texts.shortcuts}>
      {shortcutGroups.map(({ title, shortcuts }) => (
        <section key={title}>
          <h3>{title}</h3>
          <dl>
            {shortcuts.map(([keys, action]) => (
              <div key={action}>
                <dt>
                  {keys.map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
                </dt>
                <dd>{action}</dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </Dialog>
  );
}
