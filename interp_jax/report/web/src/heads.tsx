// The heads of attention: maps of their scores, a list, and a page of one: what it looks from and at, and writes.

import { useMemo } from "preact/hooks";
import { Tokens } from "./bars";
import { Show, useLoaded } from "./loaded";
import { Passage } from "./passage";
import { go, href, ofList, put } from "./route";
import * as data from "./data";
import type { Head, HeadExample, HeadRow } from "./types";
import { number, share, Token } from "./words";

export function HeadList({ query }: { query: URLSearchParams }) {
  const loaded = useLoaded(data.heads, []);
  return (
    <>
      <h1>Heads of attention</h1>
      <p class="lead">
        What each does over a text, the first token left out. Maps have layers down and heads across; the stronger the
        shade, the higher.
      </p>
      <Show of={loaded}>
        {(rows) => (
          <>
            <Maps rows={rows} />
            <Table rows={rows} query={query} />
          </>
        )}
      </Show>
    </>
  );
}

const names = (rows: HeadRow[]): string[] => Object.keys(rows[0]?.scores ?? {});
const valueOf = (row: HeadRow, name: string): number | null =>
  (name === "share" ? row.share : row.scores[name]) ?? null;

function Maps({ rows }: { rows: HeadRow[] }) {
  const width = Math.max(...rows.map((row) => row.head)) + 1;
  const height = Math.max(...rows.map((row) => row.layer)) + 1;
  const tall = height <= 16 ? 10 : 5;
  return (
    <section class="card maps" aria-hidden="true">
      {names(rows).map((name) => {
        const values = rows.flatMap((row) => row.scores[name] ?? []);
        const [low, high] = [Math.min(...values), Math.max(...values)];
        return (
          <div key={name}>
            <h3>{name}</h3>
            <svg viewBox={`0 0 ${10 * width} ${tall * height}`}>
              {rows.map((row) => {
                const value = row.scores[name];
                const shade = value == null || high <= low ? 0 : (value - low) / (high - low);
                const at = { x: 10 * row.head, y: tall * row.layer, width: 10, height: tall };
                return (
                  <rect
                    key={`${row.layer}.${row.head}`}
                    {...at}
                    fill-opacity={shade.toFixed(2)}
                    onClick={() => go(["heads", `${row.layer}.${row.head}`])}
                  >
                    <title>{`head ${row.layer}.${row.head}: ${value == null ? "–" : number(value)}`}</title>
                  </rect>
                );
              })}
            </svg>
            <p>
              <span>{values.length ? number(low) : "–"}</span>
              <span>{values.length ? number(high) : "–"}</span>
            </p>
          </div>
        );
      })}
    </section>
  );
}

function ordered(rows: HeadRow[], query: URLSearchParams): HeadRow[] {
  const words = (query.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const sort = query.get("sort");
  const tells = (row: HeadRow, word: string) =>
    `${row.layer}.${row.head}`.startsWith(word) ||
    [...row.looks_at, ...row.writes].some((token) => token.toLowerCase().includes(word));
  const found = rows.filter((row) => words.every((word) => tells(row, word)));
  if (!sort) return found;
  const sign = query.get("up") === "1" ? 1 : -1;
  const value = (row: HeadRow) => valueOf(row, sort) ?? -Infinity * sign;
  return found.sort((a, b) => sign * (value(a) - value(b)));
}

function Table({ rows, query }: { rows: HeadRow[]; query: URLSearchParams }) {
  const shown = useMemo(() => ordered(rows, query), [rows, query.toString()]);
  const kept = ofList(query);
  const [sort, up] = [query.get("sort"), query.get("up") === "1"];
  const columns = ["share", ...names(rows)];
  return (
    <section class="card list heads">
      <div class="controls">
        <label class="search">
          <span>Search</span>
          <input
            id="search"
            type="search"
            placeholder="a token, a head such as 3.1"
            value={query.get("q") ?? ""}
            onInput={(event) => put({ q: event.currentTarget.value })}
          />
        </label>
        <label class="sort">
          <span>Sort by</span>
          <select value={sort ?? ""} onChange={(event) => put({ sort: event.currentTarget.value, up: null })}>
            <option value="">number</option>
            {columns.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
      </div>
      <p class="found" role="status">
        {shown.length} of {rows.length} heads
      </p>
      <table>
        <thead>
          <tr>
            <th>head</th>
            <th>looks at</th>
            <th>writes</th>
            {columns.map((name) => (
              <th key={name} aria-sort={sort === name ? (up ? "ascending" : "descending") : "none"}>
                <button onClick={() => put({ sort: name, up: sort === name && !up ? "1" : "0" })}>
                  {name} <span aria-hidden="true">{sort === name ? (up ? "↑" : "↓") : ""}</span>
                </button>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shown.map((row) => (
            <tr key={`${row.layer}.${row.head}`}>
              <td>
                <a data-row href={href(["heads", `${row.layer}.${row.head}`], kept)}>
                  {row.layer}.{row.head}
                </a>
              </td>
              <Listed name="looks at" of={row.looks_at} />
              <Listed name="writes" of={row.writes} />
              {columns.map((name) => (
                <td key={name} data-name={name}>
                  {valueOf(row, name) === null ? "–" : number(valueOf(row, name)!)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

const Listed = ({ name, of }: { name: string; of: string[] }) => (
  <td class="about" data-name={name}>
    <p class="tokens">
      {of.map((token, i) => (
        <Token key={i} text={token} />
      ))}
    </p>
  </td>
);

export function HeadPage({ name, query }: { name: string; query: URLSearchParams }) {
  const [layer, number] = name.split(".").map(Number);
  const loaded = useLoaded(() => data.head(layer ?? NaN, number ?? NaN), [name]);
  const rows = useLoaded(data.heads, []);
  const order = rows.value ? ordered(rows.value, query).map((row) => `${row.layer}.${row.head}`) : [];
  const at = order.indexOf(name);
  const kept = ofList(query);
  const to = (key: string, other: string | undefined, text: string) =>
    other && (
      <a href={href(["heads", other], kept)} data-key={key}>
        {text}
      </a>
    );
  return (
    <>
      <nav class="neighbours" aria-label="the list">
        <a href={href(["heads"], kept)} data-key="u">
          ↑ all heads
        </a>
        {at >= 0 && (
          <span>
            {to("k", order[at - 1], `← ${order[at - 1]}`)}
            {to("j", order[at + 1], `${order[at + 1]} →`)}
          </span>
        )}
      </nav>
      <h1>Head {name}</h1>
      <Show of={loaded}>{(head) => <Described head={head} />}</Show>
    </>
  );
}

function Described({ head }: { head: Head }) {
  const intervals = head.intervals.filter((interval) => interval.examples.length);
  return (
    <>
      <p class="lead">
        {share(head.share)} of its attention does not go to the first token. In an example the underlined token looks,
        and the shade of a token says how much at it; below stand the words that the head makes likelier there.
      </p>
      <div class="columns">
        <div>
          <section class="card" id="examples">
            <h2>Where it looks most</h2>
            {head.top.map((example, i) => (
              <Looking key={i} example={example} />
            ))}
            {!head.top.length && <p class="soft">It looks at nothing but the first token.</p>}
          </section>
          {intervals.length > 0 && (
            <section class="card" id="intervals">
              <h2>Examples from each fifth of its peaks</h2>
              {intervals.map(({ low, high, examples }) => (
                <div class="interval" key={low}>
                  <h3>
                    {low.toFixed(1)} – {high.toFixed(1)}
                  </h3>
                  <div>
                    {examples.map((example, i) => (
                      <Looking key={i} example={example} />
                    ))}
                  </div>
                </div>
              ))}
            </section>
          )}
        </div>
        <aside class="card">
          <section>
            <h3>Scores</h3>
            <ul class="ranks">
              {head.scores.map(([name, value, rank]) => (
                <li key={name}>
                  {name}
                  <span>{value}</span>
                  <span>{rank}</span>
                </li>
              ))}
            </ul>
          </section>
          <Tokens title="Looks from" list={head.looks_from} kind="plain" tell={share} />
          <Tokens title="Looks at" list={head.looks_at} kind="plain" tell={share} />
          <Tokens title="Writes" list={head.writes} kind="raised" tell={share} />
        </aside>
      </div>
    </>
  );
}

function Looking({ example }: { example: HeadExample }) {
  return (
    <div class="looking">
      <Passage example={example.excerpt} maximum={1} whole />
      {example.written.length > 0 && (
        <p class="written">
          {example.written.map((word, i) => (
            <Token key={i} text={word} />
          ))}
        </p>
      )}
    </div>
  );
}
