// What the pages are given: the same from the server (report/board.py) and from the files of a static copy.

export interface Board {
  title: string;
  sources: Source[];
  heads: boolean;
  live: boolean;
  remedy: string; // the command that gives what a static copy lacks
  shard: number; // units in one file of a static copy
}

export interface Source {
  name: string;
  facts: [string, string][];
  noun: string; // "feature" or "neuron"
  n_units: number;
  per_layer: number; // units of one layer, where those of several are numbered one after the other; else 0
  n_tokens: number;
  n_chunks: number;
  scores: string[];
  fires: boolean; // whether texts can be tried on it, and whether one can steer by it
  steers: boolean;
}

/** A part of the list, column by column. */
export interface Chunk {
  start: number;
  density: number[];
  maximum: number[];
  tokens: string[][];
  text: string[];
  scores: Record<string, (number | null)[]>;
}

export interface Row {
  unit: number;
  density: number;
  maximum: number;
  tokens: string[];
  text: string;
  scores: Record<string, number | null>;
}

export interface Excerpt {
  tokens: string[];
  values: number[];
  focus: number;
}

export interface Interval<Example> {
  low: number;
  high: number;
  examples: Example[];
}

export interface Explanation {
  text: string;
  explainer: string;
  scores: Record<string, { value: number; low: number | null; high: number | null }>;
}

export interface Unit {
  unit: number;
  count: number;
  density: number;
  maximum: number;
  mean: number;
  histogram: { edges: number[]; counts: number[] };
  top: Excerpt[];
  intervals: Interval<Excerpt>[];
  fired_on: [token: string, count: number, mean: number][];
  raised: [token: string, value: number][];
  lowered: [token: string, value: number][];
  correlated: Record<string, [unit: number, value: number, about: string][]>;
  nearest: [unit: number, value: number, about: string][];
  explanations: Explanation[];
}

export interface HeadRow {
  layer: number;
  head: number;
  share: number;
  scores: Record<string, number | null>;
  looks_at: string[];
  writes: string[];
}

export interface HeadExample {
  excerpt: Excerpt;
  written: string[];
}

export interface Head {
  layer: number;
  head: number;
  share: number;
  scores: [name: string, value: string, rank: string][];
  top: HeadExample[];
  intervals: Interval<HeadExample>[];
  looks_from: [string, number][];
  looks_at: [string, number][];
  writes: [string, number][];
}

export interface Fired {
  tokens: string[];
  values: number[];
}

export interface Steered {
  before: string;
  after: string;
}
