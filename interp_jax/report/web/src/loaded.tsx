// What is loaded or computed somewhere else: shown when it is there, with a line while it is not or when it failed.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

export interface Loaded<T> {
  value?: T;
  error?: string;
}

/** The value of a promise that is made anew whenever `of` changes; what was there is kept meanwhile if `keep`. */
export function useLoaded<T>(make: () => Promise<T>, of: unknown[], keep = false): Loaded<T> {
  const [state, set] = useState<Loaded<T>>({});
  useEffect(() => {
    let current = true;
    if (!keep) set({});
    make().then(
      (value) => current && set({ value }),
      (error: Error) => current && set({ error: error.message }),
    );
    return () => void (current = false);
  }, of);
  return state;
}

export function Show<T>({ of, children }: { of: Loaded<T>; children: (value: T) => ComponentChildren }) {
  if (of.error !== undefined) return <Failure>{of.error}</Failure>;
  if (of.value === undefined) return <p class="wait">Loading …</p>;
  return <>{children(of.value)}</>;
}

export const Failure = ({ children }: { children: ComponentChildren }) => (
  <p class="failure" role="alert">
    {children}
  </p>
);
