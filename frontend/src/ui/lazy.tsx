/** Parts of the page that are loaded after its first screen. */

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { ComponentType } from "preact";

/** Milliseconds before each retry of a part that could not be loaded. */
const RETRY_DELAY = 2000;

/** A component whose code `load` fetches when it is first mounted. Until it is there, nothing is shown. */
export function lazy<Props extends object>(load: () => Promise<ComponentType<Props>>): ComponentType<Props> {
  const loaded = signal<ComponentType<Props> | null>(null);
  return function Lazy(props: Props) {
    useEffect(() => {
      let retry: ReturnType<typeof setTimeout> | undefined;
      let unmounted = false;
      const fetchPart = () => {
        load().then(
          (part) => (loaded.value = part),
          () => {
            if (!unmounted) retry = setTimeout(fetchPart, RETRY_DELAY);
          },
        );
      };
      if (loaded.peek() === null) fetchPart();
      return () => {
        unmounted = true;
        clearTimeout(retry);
      };
    }, []);
    const Part = loaded.value;
    return Part === null ? null : <Part {...props} />;
  };
}
