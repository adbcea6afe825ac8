/** A progress bar of several parts. */
export function Bars(props: {
  readonly label: string;
  /** How long each part is, relative to the others. */
  readonly shares: readonly number[];
  /** The part that is under way, as an index; null before the first. */
  readonly current: number | null;
  /** Of the current part, in [0, 1]; null if unknown. */
  readonly done: number | null;
}) {
  const { label, shares, current, done } = props;
  const filled = (index: number) => {
    if (current === null || index > current) return 0;
    return index < current ? 1 : (done ?? 0);
  };
  return (
    <div
      class={`bars ${current === null ? "bars-waiting" : ""}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(done === null ? {} : { "aria-valuenow": Math.round(done * 100) })}
    >
      {shares.map((share, index) => (
        <span key={index} style={{ flexGrow: share }}>
          <i style={{ transform: `scaleX(${filled(index)})` }} />
        </span>
      ))}
    </div>
  );
}
