// What the model does now: a box in which one types and sees a unit fire, and a slider that steers what the model says.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as data from "./data";
import { Failure } from "./loaded";
import { Passage } from "./passage";
import { put } from "./route";
import type { Board, Fired, Source, Steered, Unit } from "./types";
import { number } from "./words";

const PAUSE = 350; // milliseconds after the last change
const MOST = 5; // times the maximum
export const LONGEST = 2000; // letters, as the server takes them

interface Props {
  board: Board;
  source: Source;
  place: number;
  unit: Unit;
  query: URLSearchParams;
}

interface Answer<T> {
  value?: T;
  error?: string;
  waiting?: boolean;
}

/** Asks a while after the last change, and forgets what was asked before. `asked` null: nothing to ask. */
function useAsked<T>(ask: (signal: AbortSignal) => Promise<T>, asked: unknown[] | null): Answer<T> {
  const [answer, set] = useState<Answer<T>>({});
  useEffect(() => {
    if (asked === null) return set({});
    const control = new AbortController();
    const timer = setTimeout(() => {
      set((before) => ({ ...before, waiting: true }));
      ask(control.signal).then(
        (value) => set({ value }),
        (error: Error) => error.name !== "AbortError" && set({ error: error.message }),
      );
    }, PAUSE);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [JSON.stringify(asked)]);
  return answer;
}

/** Why there is no box or slider here; null where there is. */
function missing(board: Board, source: Source, can: boolean, wish: string): ComponentChildren {
  if (board.live && can) return null;
  return (
    <p class="soft">
      {board.live ? (
        `The dictionary of ${source.name} does not run here.`
      ) : (
        <>
          The model does not run in these files. To {wish}: <code>{board.remedy}</code>
        </>
      )}
    </p>
  );
}

export function LiveBox({ board, source, place, unit, query }: Props) {
  const [text, setText] = useState(query.get("text") ?? "");
  const asked = board.live && source.fires && text.trim() ? [source.name, unit.unit, text] : null;
  const answer = useAsked<Fired>((signal) => data.fire(place, unit.unit, text, signal), asked);
  const absent = missing(board, source, source.fires, "type a text and see it fire");
  if (absent)
    return (
      <section class="card" id="live">
        <h2>Try a text</h2>
        {absent}
      </section>
    );
  const fired = answer.value;
  const most = fired ? Math.max(0, ...fired.values) : 0;
  return (
    <section class="card" id="live">
      <h2>Try a text</h2>
      <label>
        <span class="soft">Type, and see where this {source.noun} fires.</span>
        <textarea
          rows={2}
          maxLength={LONGEST}
          spellcheck={false}
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            put({ text: event.currentTarget.value });
          }}
        />
      </label>
      <div aria-live="polite" class={answer.waiting ? "answer waiting" : "answer"}>
        {answer.waiting && !answer.value && <p class="soft">The model runs …</p>}
        {answer.error && <Failure>{answer.error}</Failure>}
        {fired && (
          <>
            <Passage
              example={{ ...fired, focus: fired.values.indexOf(most) }}
              maximum={Math.max(unit.maximum, most)}
              whole
            />
            <p class="soft">
              {most > 0
                ? `At most ${number(most)}${unit.maximum > 0 ? `, ${number(most / unit.maximum)} of its maximum` : ""}.`
                : "It does not fire here."}
            </p>
          </>
        )}
      </div>
    </section>
  );
}

export function Steering({ board, source, place, unit, query }: Props) {
  const [prompt, setPrompt] = useState(query.get("prompt") ?? "");
  const [strength, setStrength] = useState(Number(query.get("strength") ?? 2));
  const asked = board.live && source.steers && prompt.trim() ? [source.name, unit.unit, prompt, strength] : null;
  const answer = useAsked<Steered>((signal) => data.steer(place, unit.unit, prompt, strength, signal), asked);
  if (!(unit.maximum > 0)) return null;
  const absent = missing(board, source, source.steers, "steer what it says");
  if (absent)
    return (
      <section class="card" id="steer">
        <h2>Steer by it</h2>
        {absent}
      </section>
    );
  const held = strength === 0 ? "off" : `at ${number(strength)} × its maximum, ${number(strength * unit.maximum)}`;
  return (
    <section class="card" id="steer">
      <h2>Steer by it</h2>
      <label>
        <span class="soft">Begin a text; the model goes on, with this {source.noun} held.</span>
        <textarea
          rows={2}
          maxLength={LONGEST}
          spellcheck={false}
          value={prompt}
          onInput={(event) => {
            setPrompt(event.currentTarget.value);
            put({ prompt: event.currentTarget.value });
          }}
        />
      </label>
      <label class="slider">
        <span>Held {held}</span>
        <input
          type="range"
          min={-MOST}
          max={MOST}
          step={0.25}
          value={strength}
          onInput={(event) => {
            setStrength(Number(event.currentTarget.value));
            put({ strength: event.currentTarget.value });
          }}
        />
      </label>
      <div aria-live="polite" class={answer.waiting ? "answer waiting" : "answer"}>
        {answer.waiting && !answer.value && <p class="soft">The model runs …</p>}
        {answer.error && <Failure>{answer.error}</Failure>}
        {answer.value && (
          <div class="steered">
            <Said title="As it is" prompt={prompt} text={answer.value.before} />
            <Said title="Steered" prompt={prompt} text={answer.value.after} />
          </div>
        )}
      </div>
    </section>
  );
}

const Said = ({ title, prompt, text }: { title: string; prompt: string; text: string }) => (
  <div>
    <h3>{title}</h3>
    <p dir="auto">
      <span class="soft">{prompt}</span>
      {text}
    </p>
  </div>
);
