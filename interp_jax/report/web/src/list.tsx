// The list of a source's units: searched, sorted, in pages.

import { useMemo } from "preact/hooks";
import { Histogram, shares } from "./bars";
import { Show, useLoaded } from "./loaded";
import { arranged, orderOf, PAGE, type Order } from "./ordering";
import { href, ofList, put } from "./route";
import * as data from "./data";
import type { Row, Source } from "./types";
import { count, number, share, Token } from "./words";

interface Props {
  source: Source;
  place: number;
  query: URLSearchParams;
}

export function List({ source, place, query }: Props) {
  const loaded = useLoaded(() => data.rows(source, place), [source.name]);
  return (
    <>
      <h1>{source.name}</h1>
      <p class="lead">
        {count(source.n_units)} {source.noun}s, read on {count(source.n_tokens)} tokens of text.
      </p>
      <Facts of={source.facts} />
      <Show of={loaded}>{(rows) => <Table {...{ source, rows, query }} />}</Show>
    </>
  );
}

export const Facts = ({ of }: { of: [string, string][] }) => (
  <dl class="facts">
    {of.map(([name, value]) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>{value}</dd>
      </div>
    ))}
  </dl>
);

function Table({ source, rows, query }: { source: Source; rows: Row[]; query: URLSearchParams }) {
  const order = orderOf(query);
  const shown = useMemo(() => arranged(rows, order), [rows, order.words, order.sort, order.up, order.dead]);
  const n_pages = Math.max(1, Math.ceil(shown.length / PAGE));
  const page = Math.min(n_pages, Math.max(1, Number(query.get("page")) || 1));
  const kept = ofList(query);
  const dead = useMemo(() => rows.filter((row) => row.density === 0).length, [rows]);
  return (
    <>
      <Densities rows={rows} dead={dead} />
      <section class="card list">
        <Controls {...{ source, order, dead }} />
        <p class="found" role="status">
          {count(shown.length)} of {count(rows.length)} {source.noun}s
          {n_pages > 1 && `, page ${page} of ${n_pages}`}
        </p>
        <table>
          <Head {...{ source, order }} />
          <tbody>
            {shown.slice((page - 1) * PAGE, page * PAGE).map((row) => (
              <Line key={row.unit} {...{ source, row, kept }} />
            ))}
          </tbody>
        </table>
        {!shown.length && <p class="wait">Nothing has these words. Look for a token, a number or an explanation.</p>}
        {n_pages > 1 && <Pages page={page} of={n_pages} />}
      </section>
    </>
  );
}

function Controls({ source, order, dead }: { source: Source; order: Order; dead: number }) {
  const sorts = columns(source);
  return (
    <div class="controls">
      <label class="search">
        <span>Search</span>
        <input
          id="search"
          type="search"
          placeholder="a token, an explanation, a number"
          value={order.words}
          onInput={(event) => put({ q: event.currentTarget.value, page: null })}
        />
      </label>
      <label class="sort">
        <span>Sort by</span>
        <select value={order.sort} onChange={(event) => put({ sort: event.currentTarget.value, up: null, page: null })}>
          {sorts.map(([name, title]) => (
            <option key={name} value={name}>
              {title}
            </option>
          ))}
        </select>
      </label>
      <button onClick={() => put({ up: order.up ? "0" : "1", page: null })}>
        {order.up ? "↑ lowest first" : "↓ highest first"}
      </button>
      <label class="check">
        <input
          type="checkbox"
          checked={order.dead}
          disabled={!dead}
          onChange={(event) => put({ dead: event.currentTarget.checked ? "1" : null, page: null })}
        />
        with {count(dead)} that never fire
      </label>
    </div>
  );
}

function columns(source: Source): [string, string][] {
  const scores = source.scores.map((name): [string, string] => [`score:${name}`, name]);
  return [["unit", "number"], ["about", "fires on"], ["density", "how often"], ["maximum", "maximum"], ...scores];
}

function Head({ source, order }: { source: Source; order: Order }) {
  return (
    <thead>
      <tr>
        {columns(source).map(([name, title]) => {
          const sorted = order.sort === name;
          const up = name === "unit" || name === "about";
          const turned = sorted ? (order.up ? "0" : "1") : up ? "1" : "0";
          return (
            <th key={name} aria-sort={sorted ? (order.up ? "ascending" : "descending") : "none"}>
              <button onClick={() => put({ sort: name, up: turned, page: null })}>
                {title} <span aria-hidden="true">{sorted ? (order.up ? "↑" : "↓") : ""}</span>
              </button>
            </th>
          );
        })}
      </tr>
    </thead>
  );
}

function Line({ source, row, kept }: { source: Source; row: Row; kept: URLSearchParams }) {
  return (
    <tr class={row.density ? "" : "dead"}>
      <td>
        <a data-row href={href(["units", source.name, row.unit], kept)}>
          {row.unit}
        </a>
      </td>
      <td class="about">
        {row.text && <p dir="auto">{row.text}</p>}
        <p class="tokens">
          {row.density ? row.tokens.map((token, i) => <Token key={i} text={token} />) : "never fires in this text"}
        </p>
      </td>
      <td data-name="fires on">{share(row.density)}</td>
      <td data-name="maximum">{number(row.maximum)}</td>
      {source.scores.map((name) => (
        <td key={name} data-name={name}>
          {row.scores[name] == null ? "–" : number(row.scores[name]!)}
        </td>
      ))}
    </tr>
  );
}

function Pages({ page, of }: { page: number; of: number }) {
  const turn = (to: number) => {
    put({ page: to === 1 ? null : to });
    document.querySelector(".list")?.scrollIntoView();
  };
  return (
    <nav class="pages" aria-label="pages of the list">
      <button disabled={page === 1} onClick={() => turn(1)}>
        first
      </button>
      <button disabled={page === 1} onClick={() => turn(page - 1)}>
        ← before
      </button>
      <span>
        {page} of {of}
      </span>
      <button disabled={page === of} onClick={() => turn(page + 1)}>
        next →
      </button>
      <button disabled={page === of} onClick={() => turn(of)}>
        last
      </button>
    </nav>
  );
}

/** How often the units fire: a histogram over decades, four bars to each. */
function Densities({ rows, dead }: { rows: Row[]; dead: number }) {
  const { edges, counts } = useMemo(() => shares(rows.map((row) => row.density)), [rows]);
  return (
    <section class="card densities">
      <h3>How often they fire</h3>
      <Histogram edges={edges} counts={counts} label="histogram of firing rates, logarithmic" tick={share} />
      {dead > 0 && (
        <p class="soft">
          {count(dead)} of {count(rows.length)} never fire in this text
        </p>
      )}
    </section>
  );
}
