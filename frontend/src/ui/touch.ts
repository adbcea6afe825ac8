/** Whether people point with fingers here, so that texts say "tap". */
export function isTouch(): boolean {
  return matchMedia("(hover: none)").matches;
}
