// The dashboard: a bar with its sources, and below it a list or a page of one unit or head.

import "./app.css";
import { render } from "preact";
import { useEffect } from "preact/hooks";
import { HeadList, HeadPage } from "./heads";
import { listen } from "./keyboard";
import { List } from "./list";
import { Failure, Show, useLoaded } from "./loaded";
import { go, href, useRoute, type Route } from "./route";
import { Theme } from "./theme";
import { UnitPage } from "./unit";
import * as data from "./data";
import type { Board } from "./types";

function App() {
  const board = useLoaded(data.board, []);
  return <Show of={board}>{(value) => <Frame board={value} />}</Show>;
}

function Frame({ board }: { board: Board }) {
  const route = useRoute();
  const where = route.path.join("/");
  useEffect(() => {
    scrollTo(0, 0);
    document.title = [...route.path.slice(1).reverse(), board.title].join(" · ");
  }, [where]);
  return (
    <>
      <Bar board={board} route={route} />
      <main>
        <Shown board={board} route={route} />
      </main>
      <footer>
        <kbd>/</kbd> search <kbd>j</kbd> <kbd>k</kbd> next, before <kbd>u</kbd> up <kbd>tab</kbd> <kbd>←</kbd>{" "}
        <kbd>→</kbd> through an example’s tokens
      </footer>
    </>
  );
}

function Bar({ board, route }: { board: Board; route: Route }) {
  const [room, name] = route.path;
  const here = room === "heads" ? "heads" : (name ?? board.sources[0]?.name);
  const several = board.sources.length + Number(board.heads) > 1;
  return (
    <header class="bar">
      <a class="title" href="#/">
        {board.title}
      </a>
      {several && (
        <label>
          <span class="unseen">Shown</span>
          <select
            id="source"
            value={here}
            onChange={(event) => {
              const value = event.currentTarget.value;
              if (value === "heads" && board.heads) go(["heads"]);
              else go(["units", value]);
            }}
          >
            {board.sources.map((source) => (
              <option key={source.name} value={source.name}>
                {source.name}
              </option>
            ))}
            {board.heads && <option value="heads">heads of attention</option>}
          </select>
        </label>
      )}
      <Theme />
    </header>
  );
}

function Shown({ board, route: { path, query } }: { board: Board; route: Route }) {
  const [room = "units", name, third] = path;
  if (room === "heads" && board.heads)
    return name === undefined ? <HeadList query={query} /> : <HeadPage key={name} name={name} query={query} />;
  const place = name === undefined ? 0 : board.sources.findIndex((source) => source.name === name);
  const source = board.sources[place];
  if (room !== "units" || !source) return <Nothing what={path.join("/")} />;
  if (third === undefined) return <List key={source.name} {...{ source, place, query }} />;
  const number = Number(third);
  if (!/^\d+$/.test(third) || number >= source.n_units)
    return <Nothing what={`${source.noun} ${third} of ${source.n_units}`} />;
  return <UnitPage {...{ board, source, place, number, query }} />;
}

const Nothing = ({ what }: { what: string }) => (
  <Failure>
    There is no {what} here. <a href={href([])}>All that there is</a>
  </Failure>
);

listen();
render(<App />, document.getElementById("app")!);
