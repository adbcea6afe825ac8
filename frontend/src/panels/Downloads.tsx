import { useSignal } from "@preact/signals";
import { Fragment } from "preact";
import type { Download } from "../room/api.ts";
import { download } from "../room/files.ts";
import * as store from "../room/store.ts";
import { DownloadIcon } from "../ui/icons.tsx";
import { Menu, MenuItem } from "../ui/Menu.tsx";
import { PictureDialog } from "./later.ts";
import { texts } from "./texts.ts";

const labels = texts.dock;

export function Downloads() {
  const choosing = useSignal(false);
  const items = availableDownloads();
  if (items.length === 0) return null;
  return (
    <>
      <Menu name={labels.download} text={labels.download} icon={<DownloadIcon />} class="menu-above" testId="download">
        {items.map((which) => {
          const [name, help] = labels.downloads[which];
          return (
            <Fragment key={which}>
              <MenuItem onClick={() => void download(which)}>
                <span>
                  {name} <small>{help}</small>
                </span>
              </MenuItem>
              {which === "result" && store.result.value !== null && (
                <MenuItem onClick={() => (choosing.value = true)}>
                  <span>
                    {labels.pictureAs} <small>{labels.pictureAsHelp}</small>
                  </span>
                </MenuItem>
              )}
            </Fragment>
          );
        })}
      </Menu>
      <PictureDialog open={choosing} />
    </>
  );
}

function availableDownloads(): readonly Download[] {
  const { moments, capabilities } = store.room.value;
  const items: Download[] = [];
  if (store.document.value?.result) items.push("result");
  if (moments.length > 1) items.push("trajectory.webp");
  if (moments.length > 1 && capabilities.includes("mp4")) items.push("trajectory.mp4");
  if ((store.document.value?.run?.iterations ?? 0) > 0) items.push("numbers.csv", "numbers.json");
  if (store.editable.value) items.push("export");
  return items;
}
