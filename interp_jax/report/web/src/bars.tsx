// Small drawings of numbers: a histogram with a logarithmic axis, and lists of tokens with bars behind them.

import type { ComponentChildren } from "preact";
import { count, round, Token } from "./words";

const WIDTH = 320;
const HEIGHT = 96;

interface HistogramProps {
  edges: number[]; // one more than counts, growing by equal factors
  counts: number[];
  label: string;
  shaded?: boolean; // by the value over the largest, as tokens are
  tick?: (value: number) => string;
}

export function Histogram({ edges, counts, label, shaded = false, tick = round }: HistogramProps) {
  const filled = counts.flatMap((n, i) => (n > 0 ? [i] : []));
  if (!filled.length) return null;
  const first = Math.max(0, filled[0]! - 1);
  const last = Math.min(counts.length - 1, filled[filled.length - 1]! + 1);
  const low = Math.log(edges[first]!);
  const high = Math.log(edges[last + 1]!);
  const x = (value: number) => (WIDTH * (Math.log(value) - low)) / (high - low);
  const largest = Math.max(...counts);
  const bars = counts
    .slice(first, last + 1)
    .map((n, i) => ({ n, low: edges[first + i]!, high: edges[first + i + 1]! }));
  const ticks = ticksBetween(edges[first]!, edges[last + 1]!);
  return (
    <figure class="histogram">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={label}>
        {bars.map((bar) => {
          const height = bar.n ? Math.max(1.5, (HEIGHT * bar.n) / largest) : 0;
          const shade = shaded ? { "--a": Math.min(1, bar.high / edges[last]!).toFixed(3) } : undefined;
          return (
            <g key={bar.low}>
              <rect
                class={shaded ? "shaded" : ""}
                style={shade}
                x={x(bar.low) + 0.5}
                y={HEIGHT - height}
                width={Math.max(0.5, x(bar.high) - x(bar.low) - 1)}
                height={height}
              />
              <rect class="whole" x={x(bar.low)} y={0} width={x(bar.high) - x(bar.low)} height={HEIGHT}>
                <title>{`${tick(bar.low)} to ${tick(bar.high)}: ${count(bar.n)}`}</title>
              </rect>
            </g>
          );
        })}
      </svg>
      <figcaption>
        <span class="most">fullest {count(largest)}</span>
        <span class="ticks" aria-hidden="true">
          {ticks.map((value) => (
            <span key={value} style={{ left: `${(100 * x(value)) / WIDTH}%` }}>
              {tick(value)}
            </span>
          ))}
        </span>
      </figcaption>
    </figure>
  );
}

/** Round numbers for a logarithmic axis, at most six. */
function ticksBetween(low: number, high: number): number[] {
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    const found: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const step of steps) {
        const value = Number(`${step}e${power}`);
        if (value > low * 1.04 && value < high / 1.04) found.push(value);
      }
    if (found.length <= 6) return found;
  }
  const [first, last] = [Math.ceil(Math.log10(low)), Math.floor(Math.log10(high))];
  const step = Math.ceil((last - first + 1) / 6);
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => Number(`1e${last - i * step}`));
}

interface TokensProps {
  title: string;
  list: [token: string, value: number, ...rest: number[]][];
  kind: "raised" | "lowered" | "plain";
  tell: (value: number) => string;
  note?: ComponentChildren;
}

/** Tokens with a value each, whose bar is as long as the value is large. */
export function Tokens({ title, list, kind, tell, note }: TokensProps) {
  if (!list.length) return null;
  const largest = Math.max(...list.map(([, value]) => Math.abs(value)), 1e-9);
  return (
    <section>
      <h3>{title}</h3>
      <ol class={`bars ${kind}`}>
        {list.map(([token, value], i) => (
          <li key={i} style={{ "--w": `${((100 * Math.abs(value)) / largest).toFixed(1)}%` }}>
            <Token text={token} />
            <span>{tell(value)}</span>
          </li>
        ))}
      </ol>
      {note}
    </section>
  );
}

/** A histogram of shares over decades from one in a million, four bars to each. */
export function shares(values: number[]): { edges: number[]; counts: number[] } {
  const edges = Array.from({ length: 25 }, (_, i) => 10 ** (i / 4 - 6));
  const counts = new Array<number>(24).fill(0);
  for (const value of values)
    if (value > 0) counts[Math.max(0, Math.min(23, Math.floor(4 * (Math.log10(value) + 6))))]! += 1;
  return { edges, counts };
}
