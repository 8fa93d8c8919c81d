// Where the pages' data come from: the server, or, in a static copy, scripts, since a page of a file may not fetch.

import type { Board, Chunk, Fired, Head, HeadRow, Row, Source, Steered, Unit } from "./types";

const STATIC = document.documentElement.dataset["mode"] === "files";
const held = new Map<string, Promise<unknown>>();
const waiting = new Map<string, (value: unknown) => void>();

declare global {
  interface Window {
    interp_jax_data: (name: string, value: unknown) => void;
  }
}
window.interp_jax_data = (name, value) => waiting.get(name)?.(value);

function script(name: string): Promise<unknown> {
  return new Promise((done, fail) => {
    waiting.set(name, done);
    const element = document.createElement("script");
    element.src = `data/${name}.js`;
    element.onerror = () => fail(new Error(`data/${name}.js is not there; write the pages again`));
    document.head.append(element);
  });
}

async function answer<T>(name: string, options?: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`api/${name}`, options);
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Error("the server does not answer; start interp-jax dashboard again");
  }
  const value = await response.json();
  if (!response.ok) throw new Error(value.error ?? response.statusText);
  return value as T;
}

function get<T>(name: string): Promise<T> {
  const found = held.get(name) ?? (STATIC ? script(name) : answer<T>(name));
  held.set(name, found);
  found.catch(() => held.delete(name));
  return found as Promise<T>;
}

export const board = () => get<Board>("board");

/** All rows of a source's list, in their order. */
export async function rows(source: Source, place: number): Promise<Row[]> {
  const chunks = await Promise.all(
    Array.from({ length: source.n_chunks }, (_, i) => get<Chunk>(`${place}/list/${i}`)),
  );
  return chunks.flatMap(({ start, density, maximum, tokens, text, scores }) =>
    density.map((share, i) => ({
      unit: start + i,
      density: share,
      maximum: maximum[i]!,
      tokens: tokens[i]!,
      text: text[i]!,
      scores: Object.fromEntries(Object.entries(scores).map(([name, values]) => [name, values[i]!])),
    })),
  );
}

export async function unit(place: number, number: number, shard: number): Promise<Unit> {
  if (!STATIC) return get<Unit>(`${place}/unit/${number}`);
  const units = await get<Unit[]>(`${place}/units/${Math.floor(number / shard)}`);
  return units[number % shard]!;
}

export const heads = () => get<HeadRow[]>("heads");

export async function head(layer: number, number: number): Promise<Head> {
  if (!STATIC) return get<Head>(`head/${layer}/${number}`);
  return (await get<Head[]>(`layer/${layer}`))[number]!;
}

function post<T>(name: string, body: unknown, signal: AbortSignal): Promise<T> {
  return answer<T>(name, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

export const fire = (place: number, number: number, text: string, signal: AbortSignal) =>
  post<Fired>(`${place}/unit/${number}/fire`, { text }, signal);

export const steer = (place: number, number: number, prompt: string, strength: number, signal: AbortSignal) =>
  post<Steered>(`${place}/unit/${number}/steer`, { prompt, strength }, signal);
