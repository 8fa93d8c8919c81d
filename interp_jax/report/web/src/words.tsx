// Tokens and numbers as they are shown: what has no shape of its own in a line gets a sign.

const SIGNS: Record<string, string> = { "\n": "↵", "\t": "⇥" };
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}\u00a0\u115f\u1160\u3164\ufe00-\ufe0f]/gu;

/** A token with signs for line breaks, codes of characters that cannot be seen or turn the direction, and a circle for
 * a mark to stand on. */
export function visible(token: string): string {
  const code = (sign: string) => `⟨${sign.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  return token.replace(UNSEEN, (sign) => SIGNS[sign] ?? code(sign)).replace(/^(?=\p{M})/u, "◌");
}

/** A token by itself, where its spaces are shown too. */
export function Token({ text }: { text: string }) {
  const [, before = "", word = "", after = ""] = /^( *)(.*?)( *)$/su.exec(text) ?? [];
  return (
    <bdi class="token">
      {before && <span class="space">{"·".repeat(before.length)}</span>}
      {visible(word) || (before ? "" : <span class="space">empty</span>)}
      {after && <span class="space">{"·".repeat(after.length)}</span>}
    </bdi>
  );
}

/** A share with a readable number of digits, as `report.share`. */
export function share(x: number): string {
  return `${Number((100 * x).toPrecision(2))}%`;
}

export function number(x: number): string {
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e5 || size < 1e-4) return x.toExponential(1);
  return size < 0.1 ? String(Number(x.toPrecision(2))) : x.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

/** A number on an axis: no more digits than it has. */
export const round = (x: number): string =>
  x >= 1e5 || x < 1e-3 ? x.toExponential(0) : String(Number(x.toPrecision(3)));

export const count = (n: number): string => n.toLocaleString("en");
export const signed = (x: number): string => (x > 0 ? "+" : "") + number(x).replace("-", "−");
