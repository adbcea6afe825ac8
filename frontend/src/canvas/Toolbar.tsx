import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import type { Size } from "../room/geometry.ts";
import { brushRadius, brushShape, brushSoftness, editable, picture, tolerance, tool } from "../room/store.ts";
import type { Tool } from "../room/store.ts";
import {
  EraseIcon,
  HandIcon,
  LassoIcon,
  PaintIcon,
  PinIcon,
  PointsIcon,
  RectangleIcon,
  SelectIcon,
} from "../ui/icons.tsx";
import { texts as uiTexts } from "../ui/texts.ts";
import { MAX_BRUSH, MIN_BRUSH } from "./brush.ts";
import { chooseShape, chooseTool } from "./pointer.ts";
import { texts } from "./texts.ts";

const labels = texts.tools;
const SHAPES = [
  ["brush", PaintIcon],
  ["rectangle", RectangleIcon],
  ["lasso", LassoIcon],
  ["select", SelectIcon],
] as const;

export function Toolbar() {
  const size = picture.value;
  if (size === null || !editable.value) return null;
  const painting = tool.value === "paint" || tool.value === "erase";
  return (
    <div class="toolbar" role="group" aria-label={labels.title}>
      <ToolButton tool="points" name={labels.points} shortcut="V">
        <PointsIcon />
      </ToolButton>
      <ToolButton tool="pin" name={labels.pin} shortcut="N" iconOnly>
        <PinIcon />
      </ToolButton>
      <ToolButton tool="paint" name={labels.paint} shortcut="B">
        <PaintIcon />
      </ToolButton>
      <ToolButton tool="erase" name={labels.erase} shortcut="E">
        <EraseIcon />
      </ToolButton>
      <ToolButton tool="hand" name={labels.hand} shortcut="H" iconOnly>
        <HandIcon />
      </ToolButton>
      {painting && <Shapes />}
      {painting && brushShape.value === "brush" && <BrushSize picture={size} />}
      {painting && brushShape.value === "brush" && <BrushSoftness />}
      {painting && brushShape.value === "select" && <Tolerance />}
    </div>
  );
}

function Shapes() {
  return (
    <span class="shapes" role="group" aria-label={labels.shape}>
      {SHAPES.map(([shape, Icon]) => {
        const [name, shortcut] = labels.shapes[shape];
        return (
          <button
            key={shape}
            type="button"
            class="tool"
            aria-label={name}
            aria-pressed={brushShape.value === shape}
            aria-keyshortcuts={shortcut || undefined}
            title={shortcut === "" ? name : `${name} (${shortcut})`}
            onClick={() => chooseShape(shape)}
          >
            <Icon />
          </button>
        );
      })}
    </span>
  );
}

function Tolerance() {
  return (
    <label class="brush-size" title={labels.tolerance}>
      {labels.toleranceShort}
      <SignalSlider
        name={labels.tolerance}
        text={labels.percent(tolerance.value)}
        range={[0.02, 0.5]}
        step={0.01}
        signal={tolerance}
      />
    </label>
  );
}

/** A slider for a signal's value. */
function SignalSlider(props: {
  readonly name: string;
  /** The value in words. */
  readonly text: string;
  readonly range: readonly [min: number, max: number];
  readonly step: number;
  readonly signal: Signal<number>;
}) {
  const { signal } = props;
  const [min, max] = props.range;
  return (
    <input
      type="range"
      aria-label={props.name}
      aria-valuetext={props.text}
      min={min}
      max={max}
      step={props.step}
      value={signal.value}
      onInput={(event) => (signal.value = event.currentTarget.valueAsNumber)}
    />
  );
}

/** On a square root scale, which gives small brushes more of the way. */
function BrushSize({ picture: { width, height } }: { readonly picture: Size }) {
  const longest = Math.max(width, height);
  return (
    <label class="brush-size" title={`${labels.brushSize} ([ ])`}>
      <i class="brush-dot brush-small" />
      <input
        type="range"
        aria-label={labels.brushSize}
        aria-valuetext={uiTexts.pixels(brushRadius.value * 2)}
        min={Math.sqrt(MIN_BRUSH)}
        max={Math.sqrt(MAX_BRUSH)}
        step={0.005}
        value={Math.sqrt(brushRadius.value / longest)}
        onInput={(event) => (brushRadius.value = event.currentTarget.valueAsNumber ** 2 * longest)}
      />
      <i class="brush-dot brush-large" />
    </label>
  );
}

function BrushSoftness() {
  return (
    <label class="brush-size" title={labels.softness}>
      <i class="brush-dot brush-soft" />
      <span>{labels.softnessShort}</span>
      <SignalSlider
        name={labels.softness}
        text={labels.softnessValue(brushSoftness.value)}
        range={[0, 1]}
        step={0.05}
        signal={brushSoftness}
      />
    </label>
  );
}

function ToolButton(props: {
  readonly tool: Tool;
  readonly name: string;
  readonly shortcut: string;
  readonly iconOnly?: boolean;
  readonly children: ComponentChildren;
}) {
  return (
    <button
      type="button"
      class="tool"
      aria-label={props.name}
      aria-pressed={tool.value === props.tool}
      aria-keyshortcuts={props.shortcut}
      title={`${props.name} (${props.shortcut})`}
      onClick={() => chooseTool(props.tool)}
    >
      {props.children}
      {!props.iconOnly && <span>{props.name}</span>}
    </button>
  );
}
