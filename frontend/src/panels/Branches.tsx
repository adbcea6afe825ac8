import { canSeek, nameBranch, removeBranch, seek } from "../room/actions.ts";
import type { Moment } from "../room/protocol.ts";
import * as store from "../room/store.ts";
import type { Branch } from "../room/timeline.ts";
import { DraftInput } from "../ui/DraftInput.tsx";
import { BranchIcon, CloseIcon } from "../ui/icons.tsx";
import { Menu } from "../ui/Menu.tsx";
import { lookAt } from "./look-at.ts";
import { texts } from "./texts.ts";
import { Thumbnail } from "./Thumbnail.tsx";

const labels = texts.timeline;

/** Share of the row, in percent, that even a single moment takes. */
const MIN_LINE = 0.5;
const MAX_NAME = 60;

/** The branches of the timeline, in a popover of their own: however many there are, the canvas keeps its size. */
export function Branches({ here }: { readonly here: number }) {
  const branches = store.branches.value;
  if (branches.length < 2) return null;
  const longest = Math.max(1, ...branches.map(({ moments }) => moments.at(-1)?.iteration ?? 0));
  const percent = (iteration: number) => (iteration / longest) * 100;
  const current = branches.findIndex(({ moments }) => moments.some(({ id }) => id === here));
  return (
    <Menu
      name={labels.branchCount(branches.length)}
      text={String(branches.length)}
      icon={<BranchIcon />}
      class="menu-above branches-menu"
      testId="open-branches"
    >
      <ol class="branches" aria-label={labels.branches} data-testid="branches">
        {branches.map((branch, index) => (
          <BranchRow
            key={branch.marked}
            branch={branch}
            number={index + 1}
            isCurrent={index === current}
            here={branch.moments.find(({ id }) => id === here)}
            percent={percent}
          />
        ))}
      </ol>
    </Menu>
  );
}

function BranchRow(props: {
  readonly branch: Branch;
  readonly number: number;
  readonly isCurrent: boolean;
  /** The room's moment, if it is on this branch. */
  readonly here: Moment | undefined;
  /** Where an iteration is in the row. */
  readonly percent: (iteration: number) => number;
}) {
  const { branch, number, isCurrent, here, percent } = props;
  const { from, moments } = branch;
  const tip = moments.at(-1) ?? moments[0];
  const pictured = moments.findLast(({ thumbnail }) => thumbnail);
  const start = percent(from?.iteration ?? 0);
  const end = percent(tip.iteration);
  const name = branch.name || labels.branchName(number);
  const title = labels.branch(name, from?.iteration ?? 0, tip.iteration);
  return (
    <li class={`branch ${isCurrent ? "is-now" : ""}`}>
      <button
        type="button"
        class="branch-button"
        aria-label={isCurrent ? labels.currentBranch(title) : title}
        aria-current={isCurrent}
        title={title}
        onClick={() => (canSeek() ? seek(tip.id) : void lookAt(tip.id))}
      >
        {pictured !== undefined && <Thumbnail id={pictured.id} />}
        <span class="branch-tree" aria-hidden="true">
          <i
            class="branch-line"
            style={{ insetInlineStart: `${start}%`, width: `${Math.max(MIN_LINE, end - start)}%` }}
          />
          <i class="branch-tip" style={{ insetInlineStart: `${end}%` }} />
          {here && <i class="branch-here" style={{ insetInlineStart: `${percent(here.iteration)}%` }} />}
        </span>
        <span class="branch-caption">{labels.branchEnd(tip.iteration)}</span>
      </button>
      {store.editable.value ? (
        <DraftInput
          type="text"
          class="branch-name"
          aria-label={labels.rename(name)}
          placeholder={labels.branchName(number)}
          maxLength={MAX_NAME}
          value={branch.name}
          onCommit={(input) => nameBranch(branch, input.value)}
        />
      ) : (
        <span class="branch-name">{name}</span>
      )}
      {store.editable.value && (
        <button
          type="button"
          class="quiet-button"
          aria-label={labels.removeBranch(name)}
          title={labels.removeBranch(name)}
          disabled={isCurrent}
          onClick={() => removeBranch(branch)}
        >
          <CloseIcon />
        </button>
      )}
    </li>
  );
}
