// The address of what is shown stands after the # of the URL, so that every view can be linked:
//   #/units/SOURCE?q=WORDS&sort=COLUMN&page=2    #/units/SOURCE/7?text=TYPED    #/heads    #/heads/1.2

import { useEffect, useState } from "preact/hooks";

export interface Route {
  path: string[];
  query: URLSearchParams;
}

export function read(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { path: path.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function href(path: (string | number)[], query?: URLSearchParams): string {
  const said = query?.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${said ? `?${said}` : ""}`;
}

export function go(path: (string | number)[], query?: URLSearchParams): void {
  location.hash = href(path, query);
}

/** Changes the query in place: no new entry in the browser's history, and the page stays where it is. */
export function put(changes: Record<string, string | number | null>): void {
  const { path, query } = read(location.hash);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, String(value));
  }
  history.replaceState(null, "", href(path, query));
  dispatchEvent(new Event("hashchange"));
}

const OF_THE_LIST = ["q", "sort", "up", "dead"];

/** What of a query says which list one has come from: a page of a unit keeps it, and goes on in its order. */
export function ofList(query: URLSearchParams): URLSearchParams {
  return new URLSearchParams(OF_THE_LIST.flatMap((name) => (query.has(name) ? [[name, query.get(name)!]] : [])));
}

export function useRoute(): Route {
  const [hash, set] = useState(location.hash);
  useEffect(() => {
    const changed = () => set(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return read(hash);
}
