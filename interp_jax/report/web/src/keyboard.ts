// Keys: / to the search, j and k or the arrows to the next and the one before, u up to the list.

const TYPED_IN = "input, textarea, select, [contenteditable]";
const SAME: Record<string, string> = { ArrowRight: "j", ArrowLeft: "k", ArrowDown: "j", ArrowUp: "k" };

export function listen(): void {
  addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && target.matches(TYPED_IN)) return target.blur();
    if (target.matches(TYPED_IN)) return;
    if (event.key === "/") return toSearch(event);
    const rows = [...document.querySelectorAll<HTMLElement>("[data-row]")];
    const vertical = event.key === "ArrowUp" || event.key === "ArrowDown";
    if (vertical && !rows.includes(target)) return; // the page is scrolled
    const key = SAME[event.key] ?? event.key;
    if (rows.length && (key === "j" || key === "k")) {
      event.preventDefault();
      const at = rows.indexOf(target);
      const next = at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + (key === "j" ? 1 : -1)));
      rows[next]?.focus();
      return;
    }
    document.querySelector<HTMLElement>(`[data-key="${CSS.escape(key)}"]`)?.click();
  });
}

function toSearch(event: KeyboardEvent): void {
  event.preventDefault();
  const search = document.querySelector<HTMLInputElement>("#search");
  if (search) return void (search.focus(), search.select());
  document.querySelector<HTMLElement>('[data-key="u"]')?.click();
  setTimeout(() => document.querySelector<HTMLInputElement>("#search")?.focus(), 50);
}
