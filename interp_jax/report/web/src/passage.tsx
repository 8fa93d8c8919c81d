// A stretch of text whose tokens are shaded by a value. Pointing at a token, or going to it by the arrow keys, tells
// the value; what is far from the token that it was chosen for opens by a button.

import { Fragment } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Excerpt } from "./types";
import { number, visible } from "./words";

const BEFORE = 20;
const AFTER = 10; // tokens shown before it is opened

interface Props {
  example: Excerpt;
  maximum: number; // what has the full shade
  whole?: boolean;
}

export function Passage({ example, maximum, whole = false }: Props) {
  const { tokens, values, focus } = example;
  const [open, setOpen] = useState(whole);
  const [told, tell] = useState<{ at: number; left: number; top: number } | null>(null);
  const [stop, setStop] = useState(focus); // the one token that the tab key reaches
  const box = useRef<HTMLDivElement>(null);

  const start = open ? 0 : Math.max(0, focus - BEFORE);
  const end = open ? tokens.length : Math.min(tokens.length, focus + AFTER + 1);
  const cut = tokens.length > BEFORE + AFTER + 1 || end - start < tokens.length;

  const point = (event: Event, at: number) => {
    const token = event.currentTarget as HTMLElement;
    const widest = (box.current?.clientWidth ?? 0) - 150;
    tell({ at, left: Math.max(0, Math.min(token.offsetLeft, widest)), top: token.offsetTop });
  };
  const move = (event: KeyboardEvent, at: number) => {
    const next = at + (event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0);
    if (next === at) return;
    event.preventDefault();
    event.stopPropagation();
    if (next < start || next >= end) return;
    setStop(next);
    box.current?.querySelector<HTMLElement>(`[data-at="${next}"]`)?.focus();
  };
  const reached = stop >= start && stop < end ? stop : start;

  return (
    <div class="passage" ref={box} onMouseLeave={() => tell(null)}>
      <p>
        {start > 0 && <span class="cut">… </span>}
        {tokens.slice(start, end).map((token, i) => {
          const at = start + i;
          const value = values[at] ?? 0;
          const [, space = "", word = ""] = /^( *)(.*)$/su.exec(token) ?? [];
          return (
            <Fragment key={at}>
              {at > start && word && space}
              <bdi
                class={`t${value > 0 ? " fires" : ""}${at === focus ? " focus" : ""}`}
                style={value > 0 ? { "--a": Math.min(1, value / maximum).toFixed(3) } : undefined}
                data-at={at}
                tabIndex={at === reached ? 0 : -1}
                onMouseEnter={(event) => point(event, at)}
                onFocus={(event) => point(event, at)}
                onBlur={() => tell(null)}
                onKeyDown={(event) => move(event, at)}
              >
                {visible(word || space)}
              </bdi>
            </Fragment>
          );
        })}
        {end < tokens.length && <span class="cut"> …</span>}
        {cut && !whole && (
          <button class="quiet" aria-expanded={open} onClick={() => setOpen(!open)}>
            {open ? "less" : "more"}
          </button>
        )}
      </p>
      {told && (
        <div class="told" role="status" style={{ left: `${told.left}px`, top: `${told.top}px` }}>
          <bdi>{visible(tokens[told.at]!.trim() || tokens[told.at]!)}</bdi> <b>{number(values[told.at] ?? 0)}</b>
        </div>
      )}
    </div>
  );
}
