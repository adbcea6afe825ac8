import { canSeek, seek } from "../room/actions.ts";
import type { Moment } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import type { Branch } from "../room/timeline.ts";
import { lookAt } from "./look-at.ts";
import { texts } from "./texts.ts";

const labels = texts.timeline;

/** Share of the row, in percent, that even a single moment takes. */
const MIN_LINE = 0.5;

/** The branches of the timeline as a tree: a row each, from where it left another to its end. */
export function Branches({ here }: { readonly here: number }) {
  const branches = store.branches.value;
  if (branches.length < 2) return null;
  const longest = Math.max(1, ...branches.map(({ moments }) => moments.at(-1)?.iteration ?? 0));
  const percent = (iteration: number) => (iteration / longest) * 100;
  const current = branches.findIndex(({ moments }) => moments.some(({ id }) => id === here));
  return (
    <ol class="branches" aria-label={labels.branches} data-testid="branches">
      {branches.map((branch, index) => (
        <li key={branch.moments[0].id}>
          <BranchButton
            branch={branch}
            index={index}
            isCurrent={index === current}
            here={branch.moments.find(({ id }) => id === here)}
            percent={percent}
          />
        </li>
      ))}
    </ol>
  );
}

function BranchButton(props: {
  readonly branch: Branch;
  readonly index: number;
  readonly isCurrent: boolean;
  /** The room's moment, if it is on this branch. */
  readonly here: Moment | undefined;
  /** Where an iteration is in the row. */
  readonly percent: (iteration: number) => number;
}) {
  const { branch, index, isCurrent, here, percent } = props;
  const { from, moments } = branch;
  const tip = moments.at(-1) ?? moments[0];
  const start = percent(from?.iteration ?? 0);
  const end = percent(tip.iteration);
  const name = labels.branch(index + 1, from?.iteration ?? 0, tip.iteration);
  return (
    <button
      type="button"
      class={`branch ${isCurrent ? "is-now" : ""}`}
      aria-label={isCurrent ? labels.currentBranch(name) : name}
      aria-current={isCurrent}
      title={name}
      onClick={() => (canSeek() ? seek(tip.id) : void lookAt(tip.id))}
    >
      <span class="branch-tree" aria-hidden="true">
        {from !== null && (
          <i class="branch-stem" style={{ insetInlineStart: `${start}%`, "--up": index - from.branch }} />
        )}
        <i
          class="branch-line"
          style={{ insetInlineStart: `${start}%`, width: `${Math.max(MIN_LINE, end - start)}%` }}
        />
        <i class="branch-tip" style={{ insetInlineStart: `${end}%` }} />
        {here && <i class="branch-here" style={{ insetInlineStart: `${percent(here.iteration)}%` }} />}
      </span>
      <span class="branch-caption">{labels.branchEnd(tip.iteration)}</span>
    </button>
  );
}
