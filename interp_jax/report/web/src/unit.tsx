// The page of one unit, a feature or a neuron: what it fires on, what it writes, what is near, and what is said of it.

import { useMemo } from "preact/hooks";
import { Histogram, Tokens } from "./bars";
import { LiveBox, Steering } from "./live";
import { Show, useLoaded } from "./loaded";
import { arranged, orderOf, PAGE } from "./ordering";
import { Passage } from "./passage";
import { href, ofList } from "./route";
import * as data from "./data";
import type { Board, Explanation, Source, Unit } from "./types";
import { count, number, share, signed, Token } from "./words";

interface Props {
  board: Board;
  source: Source;
  place: number;
  number: number;
  query: URLSearchParams;
}

export function UnitPage({ board, source, place, number: wanted, query }: Props) {
  const loaded = useLoaded(() => data.unit(place, wanted, board.shard), [source.name, wanted]);
  return (
    <>
      <Neighbours {...{ source, place, number: wanted, query }} />
      <Show of={loaded}>{(unit) => <Page key={unit.unit} {...{ board, source, place, unit, query }} />}</Show>
    </>
  );
}

/** Back to the list, and to the units before and after in its order. */
function Neighbours({ source, place, number: wanted, query }: Omit<Props, "board">) {
  const kept = ofList(query);
  const rows = useLoaded(() => data.rows(source, place), [source.name]);
  const order = useMemo(() => (rows.value ? arranged(rows.value, orderOf(query)) : []), [rows.value, kept.toString()]);
  const at = order.findIndex((row) => row.unit === wanted);
  const list = new URLSearchParams(kept);
  if (at >= PAGE) list.set("page", String(Math.floor(at / PAGE) + 1));
  const before = at > 0 ? order[at - 1] : undefined;
  const after = order[at + 1];
  return (
    <nav class="neighbours" aria-label="the list">
      <a href={href(["units", source.name], list)} data-key="u">
        ↑ all {source.noun}s
      </a>
      {at >= 0 && (
        <span>
          {before && (
            <a href={href(["units", source.name, before.unit], kept)} data-key="k">
              ← {before.unit}
            </a>
          )}
          {after && (
            <a href={href(["units", source.name, after.unit], kept)} data-key="j">
              {after.unit} →
            </a>
          )}
        </span>
      )}
    </nav>
  );
}

function title(source: Source, unit: number): string {
  const name = source.noun[0]!.toUpperCase() + source.noun.slice(1);
  if (!source.per_layer) return `${name} ${unit}`;
  return `${name} ${Math.floor(unit / source.per_layer)}.${unit % source.per_layer}`;
}

function Page({ board, source, place, unit, query }: Omit<Props, "number"> & { unit: Unit }) {
  const live = { board, source, place, unit, query };
  return (
    <>
      <h1>{title(source, unit.unit)}</h1>
      <p class="lead">
        of {source.name}, in {count(source.n_tokens)} tokens
      </p>
      <dl class="facts">
        <Fact name="fires on" value={share(unit.density)} />
        <Fact name="times" value={count(unit.count)} />
        <Fact name="maximum" value={number(unit.maximum)} />
        <Fact name="mean where it fires" value={number(unit.mean)} />
      </dl>
      <div class="columns">
        <div>
          <Explanations of={unit.explanations} />
          <Strongest unit={unit} noun={source.noun} />
          <LiveBox {...live} />
          <Steering {...live} />
          <Intervals unit={unit} />
        </div>
        <aside class="card">
          <Aside source={source} unit={unit} query={query} />
        </aside>
      </div>
    </>
  );
}

const Fact = ({ name, value }: { name: string; value: string }) => (
  <div>
    <dt>{name}</dt>
    <dd>{value}</dd>
  </div>
);

function Explanations({ of }: { of: Explanation[] }) {
  if (!of.length) return null;
  return (
    <section class="card" id="explanations">
      <h2>{of.length > 1 ? "Explanations" : "Explanation"}</h2>
      {of.map((one, i) => (
        <div class="explanation" key={i}>
          <p dir="auto">{one.text}</p>
          <p class="soft">
            by {one.explainer}
            {Object.entries(one.scores).map(([name, { value, low, high }]) => (
              <span class="score" key={name}>
                {name} <b>{number(value)}</b>
                {low !== null && high !== null && (
                  <span>
                    {" "}
                    ({number(low)} to {number(high)})
                  </span>
                )}
              </span>
            ))}
          </p>
        </div>
      ))}
    </section>
  );
}

function Strongest({ unit, noun }: { unit: Unit; noun: string }) {
  if (!unit.top.length)
    return (
      <section class="card" id="examples">
        <h2>It never fires</h2>
        <p class="soft">
          This {noun} fires on none of the tokens that were read, so that there are no examples of it. More text may
          have some; a {noun} that never fires on much text is dead.
        </p>
      </section>
    );
  return (
    <section class="card" id="examples">
      <h2>Strongest examples</h2>
      {unit.top.map((example, i) => (
        <Passage key={i} example={example} maximum={unit.maximum} />
      ))}
    </section>
  );
}

function Intervals({ unit }: { unit: Unit }) {
  const intervals = unit.intervals.filter((interval) => interval.examples.length);
  if (!intervals.length) return null;
  return (
    <section class="card" id="intervals">
      <h2>Examples from each fifth of its range</h2>
      {intervals.map(({ low, high, examples }) => (
        <div class="interval" key={low}>
          <h3>
            {number(low)} – {number(high)}
          </h3>
          <div>
            {examples.map((example, i) => (
              <Passage key={i} example={example} maximum={unit.maximum} />
            ))}
          </div>
        </div>
      ))}
    </section>
  );
}

function Aside({ source, unit, query }: { source: Source; unit: Unit; query: URLSearchParams }) {
  const kept = ofList(query);
  return (
    <>
      {unit.count > 0 && (
        <section>
          <h3>Activations</h3>
          <Histogram {...unit.histogram} shaded label="histogram of its activations, logarithmic" />
        </section>
      )}
      <Tokens title="Fires on" list={unit.fired_on} kind="plain" tell={(n) => `${count(n)} ×`} />
      <div class="pair">
        <Tokens title="Logits raised" list={unit.raised} kind="raised" tell={signed} />
        <Tokens title="Logits lowered" list={unit.lowered} kind="lowered" tell={signed} />
      </div>
      {Object.entries(unit.correlated).map(([name, list]) => (
        <Near
          key={name}
          title="Fires together with"
          of={name === source.name ? "" : name}
          {...{ name, list, query: name === source.name ? kept : undefined }}
        />
      ))}
      <Near title="Nearest by what they write" name={source.name} list={unit.nearest} query={kept} />
    </>
  );
}

interface NearProps {
  title: string;
  of?: string;
  name: string; // of the source
  list: [unit: number, value: number, about: string][];
  query?: URLSearchParams | undefined;
}

function Near({ title, of, name, list, query }: NearProps) {
  if (!list.length) return null;
  return (
    <section>
      <h3>
        {title} {of && <span class="address">{of}</span>}
      </h3>
      <ol class="near">
        {list.map(([unit, value, about]) => (
          <li key={unit}>
            <a href={href(["units", name, unit], query)}>{unit}</a>
            <span class="about">{about && <Token text={about} />}</span>
            <span>{number(value).replace("-", "−")}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}
