// Which rows of a list are shown, in which order: by words that are searched for and a column that is sorted by.

import type { Row } from "./types";

export const PAGE = 50; // rows shown at once

export interface Order {
  words: string;
  sort: string; // "unit", "density", "maximum", "about", "score:NAME"
  up: boolean; // the smallest first
  dead: boolean; // those that never fire are shown too
}

export function orderOf(query: URLSearchParams): Order {
  const sort = query.get("sort") ?? "unit";
  const up = query.has("up") ? query.get("up") === "1" : sort === "unit" || sort === "about";
  return { words: query.get("q") ?? "", sort, up, dead: query.get("dead") === "1" };
}

export function arranged(rows: Row[], order: Order): Row[] {
  const wanted = order.words.toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter((row) => (order.dead || row.density > 0) && wanted.every((word) => tells(row, word)));
  const sign = order.up ? 1 : -1;
  return found.sort((a, b) => compare(value(a, order.sort), value(b, order.sort), sign) || a.unit - b.unit);
}

/** Whether a row's number is a word, or its explanation or tokens have it. */
function tells(row: Row, word: string): boolean {
  if (String(row.unit) === word.replace(/^#/, "")) return true;
  return row.text.toLowerCase().includes(word) || row.tokens.some((token) => token.toLowerCase().includes(word));
}

function value(row: Row, sort: string): number | string | null {
  if (sort === "density" || sort === "maximum") return row[sort];
  if (sort === "about") return (row.text || row.tokens[0]?.trim().toLowerCase()) ?? null;
  if (sort.startsWith("score:")) return row.scores[sort.slice(6)] ?? null;
  return row.unit;
}

/** What has no value comes last, whichever way. */
function compare(a: number | string | null, b: number | string | null, sign: number): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  return sign * (typeof a === "string" ? a.localeCompare(String(b)) : a - Number(b));
}
