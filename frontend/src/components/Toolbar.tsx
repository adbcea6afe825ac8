import type { ComponentChildren } from "preact";
import { brush, editable, picture, softness, tool } from "../store.ts";
import type { Tool } from "../store.ts";
import { BRUSH, choose } from "../tools.ts";
import { texts } from "../texts.ts";
import { BrushSoftIcon, EraseIcon, HandIcon, PaintIcon, PointsIcon } from "./icons.tsx";

export function Toolbar() {
  const size = picture.value;
  if (size === null || !editable.value) return null;
  const painting = tool.value === "paint" || tool.value === "erase";
  const longest = Math.max(size.width, size.height);
  return (
    <div class="toolbar" role="group" aria-label={texts.editor.tools}>
      <ToolButton of="points" name={texts.editor.points} keys="V">
        <PointsIcon />
      </ToolButton>
      <ToolButton of="paint" name={texts.editor.paint} keys="B">
        <PaintIcon />
      </ToolButton>
      <ToolButton of="erase" name={texts.editor.erase} keys="E">
        <EraseIcon />
      </ToolButton>
      <ToolButton of="hand" name={texts.editor.hand} keys="H" brief>
        <HandIcon />
      </ToolButton>
      {painting && (
        <label class="brush-size" title={`${texts.editor.brush} ([ ])`}>
          <i class="brush-dot brush-small" />
          <input
            type="range"
            aria-label={texts.editor.brush}
            aria-valuetext={texts.px(brush.value * 2)}
            min={Math.sqrt(BRUSH.least)}
            max={Math.sqrt(BRUSH.most)}
            step={0.005}
            // The square root gives small brushes, where a little matters, more of the way.
            value={Math.sqrt(brush.value / longest)}
            onInput={(event) => (brush.value = event.currentTarget.valueAsNumber ** 2 * longest)}
          />
          <i class="brush-dot brush-large" />
        </label>
      )}
      {painting && (
        <label class="brush-size brush-soft" title={texts.editor.softness}>
          <BrushSoftIcon />
          <input
            type="range"
            aria-label={texts.editor.softness}
            aria-valuetext={texts.editor.softnessValue(softness.value)}
            min={0}
            max={1}
            step={0.05}
            value={softness.value}
            onInput={(event) => (softness.value = event.currentTarget.valueAsNumber)}
          />
        </label>
      )}
    </div>
  );
}

function ToolButton(props: {
  readonly of: Tool;
  readonly name: string;
  readonly keys: string;
  /** The icon alone says it. */
  readonly brief?: boolean;
  readonly children: ComponentChildren;
}) {
  return (
    <button
      type="button"
      class="tool"
      aria-pressed={tool.value === props.of}
      aria-keyshortcuts={props.keys}
      title={`${props.name} (${props.keys})`}
      onClick={() => choose(props.of)}
    >
      {props.children}
      <span class={props.brief ? "visually-hidden" : ""}>{props.name}</span>
    </button>
  );
}
