// Light or dark: as the system says, until it is turned here.

import { useState } from "preact/hooks";

const KEY = "interp-jax-theme";

function kept(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // where a browser keeps nothing for a page of a file
  }
}

function turnTo(theme: string): void {
  document.documentElement.dataset["theme"] = theme;
}

const before = kept();
if (before) turnTo(before); // before anything is drawn

export function Theme() {
  const [turned, set] = useState(before);
  const now = turned ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const other = now === "dark" ? "light" : "dark";
  const turn = () => {
    set(other);
    turnTo(other);
    try {
      localStorage.setItem(KEY, other);
    } catch {
      // it holds for this view
    }
  };
  return (
    <button class="theme" onClick={turn} aria-label={`turn to ${other} colours`}>
      {other}
    </button>
  );
}
