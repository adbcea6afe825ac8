import type { Signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { QUALITIES, copyResult, download, downloadResult } from "../room/files.ts";
import type { PictureFormat } from "../room/files.ts";
import * as store from "../room/store.ts";
import { Dialog } from "../ui/Dialog.tsx";
import { CopyIcon, DownloadIcon } from "../ui/icons.tsx";
import { texts as laterTexts } from "./later-texts.ts";
import { texts } from "./texts.ts";

const FORMATS: readonly PictureFormat[] = ["png", "jpeg", "webp"];
/** Percent of the original's sides. */
const SIZES = [100, 75, 50, 25] as const;

/** Format, quality and size of the result, to download or to copy. */
export function PictureDialog({ open }: { readonly open: Signal<boolean> }) {
  const [format, setFormat] = useState<PictureFormat>("jpeg");
  const [quality, setQuality] = useState<number>(QUALITIES.initial);
  const [percent, setPercent] = useState(100);
  const [metadata, setMetadata] = useState(true);
  const result = store.result.value;
  const text = laterTexts.picture;
  if (result === null) return null;
  const scale = percent / 100;
  // Only the server's own file says how it was made; what this browser writes has no metadata.
  const asStored = format === "png" && percent === 100;
  const done = () => (open.value = false);
  return (
    <Dialog open={open} title={text.title}>
      <div class="setting-group">
        <div class="setting">
          <label for="picture-format">{text.format}</label>
          <select
            id="picture-format"
            class="field"
            value={format}
            onChange={({ currentTarget: { value } }) => setFormat(FORMATS.find((one) => one === value) ?? "png")}
          >
            {FORMATS.map((one) => (
              <option key={one} value={one}>
                {text.formats[one]}
              </option>
            ))}
          </select>
        </div>
        <div class="setting">
          <label for="picture-quality">{text.quality}</label>
          <input
            id="picture-quality"
            class="field"
            type="number"
            min={QUALITIES.min}
            max={QUALITIES.max}
            disabled={format === "png"}
            value={quality}
            onChange={({ currentTarget: { valueAsNumber: value } }) =>
              setQuality(Math.min(QUALITIES.max, Math.max(QUALITIES.min, Math.round(value) || QUALITIES.initial)))
            }
          />
          {format === "png" && <small>{text.lossless}</small>}
        </div>
        <div class="setting">
          <label for="picture-size">{text.size}</label>
          <select
            id="picture-size"
            class="field"
            value={percent}
            onChange={({ currentTarget: { value } }) => setPercent(Number(value))}
          >
            {SIZES.map((one) => (
              <option key={one} value={one}>
                {text.sizes(one, Math.round((result.width * one) / 100), Math.round((result.height * one) / 100))}
              </option>
            ))}
          </select>
        </div>
        <div class="setting">
          <label for="picture-metadata">{text.metadata}</label>
          <input
            id="picture-metadata"
            class="check"
            type="checkbox"
            aria-describedby="picture-metadata-help"
            disabled={!asStored}
            checked={asStored && metadata}
            onChange={({ currentTarget: { checked } }) => setMetadata(checked)}
          />
          <small id="picture-metadata-help">{asStored ? text.metadataHelp : text.metadataOnly}</small>
        </div>
      </div>
      <div class="row">
        <button
          type="button"
          class="primary-button"
          onClick={() => {
            const saved =
              asStored && metadata ? download("result") : downloadResult(result, format, quality / 100, scale);
            void saved.then(done);
          }}
        >
          <DownloadIcon />
          {texts.dock.download}
        </button>
        <button type="button" class="small-button" onClick={() => void copyResult(result, scale).then(done)}>
          <CopyIcon />
          {text.copy}
        </button>
      </div>
    </Dialog>
  );
}
