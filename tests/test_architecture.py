"""The plan of the house, held by `ast`: arrows between rooms run one way, from `experiments` down to `core`.

Each check is a function from sources to a list of violations, so that it can also be run on a planted one.
"""

import ast
from collections.abc import Iterator, Mapping
import graphlib
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "interp_jax"
PAGES = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}
TOP_LEVEL = {"pyproject.toml", *PAGES, PACKAGE, "experiments", "configs", "tests"}

METHODS = set("dictionaries patching lens heads weights fourier circuits graphs probes steering".split())
METHODS |= set("attribution influence editing geometry".split())
GROUND = {"core", "interventions", "metrics", "masking", "runs", "nodes", "io", "progress"}
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "interventions": {"core"},
    "metrics": {"core"},
    "listing": {"core"},
    "masking": set(),
    "runs": set(),
    "nodes": {"core"},
    "models": {"core", "io"},
    "data": set(),
    "io": set(),
    "config": set(),
    "progress": set(),
    **dict.fromkeys(METHODS, GROUND),
    "lens": GROUND | {"weights"},  # the unembedding is read alike by both; by the face alone
    "explain": METHODS | GROUND,
    "report": METHODS | GROUND | {"explain"},
}
EVERYTHING = {*MAY_IMPORT, "cli"}
MAY_IMPORT |= {"": EVERYTHING, "cli": EVERYTHING}  # "" is the package's own face

PEERS = set("torch transformers transformer_lens sae_lens".split())  # only in the extras
HEAVY = PEERS | set("datasets grain huggingface_hub orbax penzai plotly sklearn tensorboard treescope".split())

Sources = Mapping[str, str]  # dotted module name -> source


def read(folder: str) -> dict[str, str]:
    sources = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return sources


def imports(source: str, *, types: bool = True, lazy: bool = True) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names) of every import; without `types` not the type checker's, without `lazy` not the functions'."""
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not used in this house"
            yield node.module or "", tuple(alias.name for alias in node.names)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (types or not for_types) and (lazy or not function):
            nodes.extend(ast.iter_child_nodes(node))


def edges(sources: Sources) -> dict[str, set[str]]:
    """Module -> the package's modules that it imports, for types too."""
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        graph[module] = set()
        for name, names in imports(source):
            if name.split(".")[0] == PACKAGE:
                inside = {f"{name}.{n}" for n in names} or {name}
                graph[module] |= {i if i in sources else name for i in inside}
    return graph


def room(module: str) -> str:
    """ "core" of "interp_jax.core.site"; "" of the package itself."""
    return (module.split(".") + [""])[1]


def wrong_arrows(sources: Sources) -> list[str]:
    found = []
    for module, targets in edges(sources).items():
        here = room(module)
        if here not in MAY_IMPORT:
            found.append(f"{module}: {here} is not a room of the plan")
            continue
        for target in targets:
            face = room(target) == "" and here not in ("", "cli")
            inside = {here, room(target)} <= METHODS and here != room(target) and target != f"{PACKAGE}.{room(target)}"
            if face or inside or room(target) not in MAY_IMPORT[here] | {here, ""}:
                found.append(f"{module} imports {target}")
    return found


def cycles(sources: Sources) -> list[str]:
    try:
        graphlib.TopologicalSorter(edges(sources)).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def behind_core(sources: Sources) -> list[str]:
    """Nothing outside core imports past its face."""
    face = f"{PACKAGE}.core"
    shown = {
        element.value
        for node in ast.walk(ast.parse(sources.get(face, "")))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for element in getattr(node.value, "elts", ())
    }
    found = []
    for module, source in sources.items():
        for name, names in imports(source):
            past = name.startswith(f"{face}.") or (name == face and not shown.issuperset(names))
            if room(module) != "core" and past:
                found.append(f"{module} imports {', '.join(names)} from {name}")
        if room(module) != "core":
            inner = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
            named = [node for node in inner if ast.unparse(node.value) in ("core", face, "ij.core")]
            found += [f"{module} uses {ast.unparse(node)}" for node in named if node.attr not in shown]
    return found


def heavy_imports(sources: Sources) -> list[str]:
    found = []
    for module, source in sources.items():
        found += [
            f"{module} imports {n} when imported"
            for n, _ in imports(source, types=False, lazy=False)
            if n.split(".")[0] in HEAVY
        ]
        found += [f"{module} imports {n}" for n, _ in imports(source) if n.split(".")[0] in PEERS]
    return found


def private_jax(sources: Sources) -> list[str]:
    return [module for module, source in sources.items() if "jax._src" in source]


def behind_the_face(sources: Sources) -> list[str]:
    """Experiments use what a user may: no room's private names, and `core` only through `interp_jax`."""
    found = []
    for module, source in sources.items():
        for name, names in imports(source):
            path = [*name.split("."), *names]
            if path[0] == PACKAGE and (path[1:2] == ["core"] or any(part.startswith("_") for part in path)):
                found.append(f"{module} imports {'.'.join(path)}")
    return found


def too_long(sources: Sources, limit: int) -> list[str]:
    return [f"{m}: {s.count(chr(10))} lines" for m, s in sources.items() if s.count("\n") > limit]


def sniffing(sources: Sources) -> list[str]:
    """What is known of a kind stands on its class: dictionaries are not felt over for attributes or private methods."""
    found = []
    for module, source in sources.items():
        if room(module) != "dictionaries":
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                literal = any(isinstance(argument, ast.Constant) for argument in node.args)
                if node.func.id == "hasattr" or (node.func.id == "getattr" and (literal or len(node.args) > 2)):
                    found.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                if ast.unparse(node.value) not in ("self", "cls", "super()"):
                    found.append(f"{module}:{node.lineno}: {ast.unparse(node)}")
    return found


def none(violations: list[str]) -> None:
    assert not violations, "\n".join(violations)


def test_arrows_run_one_way() -> None:
    none(wrong_arrows(read(PACKAGE)))


def test_no_cycles() -> None:
    none(cycles(read(PACKAGE)))


def test_core_is_imported_by_its_face() -> None:
    none(behind_core(read(PACKAGE)))


def test_heavy_imports_are_lazy() -> None:
    none(heavy_imports(read(PACKAGE)))
    line = f"import sys, {PACKAGE}; print(*({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout == "\n"


def test_no_private_jax() -> None:
    none(private_jax(read(PACKAGE) | read("experiments")))


def test_experiments_use_the_public_face() -> None:
    none(behind_the_face(read("experiments")))


def test_dictionaries_are_asked_and_not_felt_over() -> None:
    none(sniffing(read(PACKAGE)))


def test_files_read_in_one_sitting() -> None:
    none(too_long(read(PACKAGE) | read("tests") | read("experiments"), 320))
    none(too_long(read("experiments"), 200))


def test_top_level() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout: what belongs to the project is not known")
    entries = {file.split("/")[0] for file in files.stdout.split()}
    assert {entry for entry in entries if not entry.startswith(".")} - TOP_LEVEL == set()


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        (wrong_arrows, {"interp_jax.core.site": "from interp_jax.models import forward"}),
        (wrong_arrows, {"interp_jax.lens.logit": "import interp_jax.patching.sweep"}),
        (wrong_arrows, {"interp_jax.lens.logit": "import interp_jax.weights.views", "interp_jax.weights.views": ""}),
        (wrong_arrows, {"interp_jax.probes": "def f():\n    import interp_jax"}),
        (wrong_arrows, {"interp_jax.probes": "from interp_jax import models", "interp_jax.models": ""}),
        (wrong_arrows, {"interp_jax.utils": ""}),
        (
            cycles,
            {"interp_jax.io.a": "from interp_jax.io import b", "interp_jax.io.b": "from interp_jax.io.a import x"},
        ),
        (
            cycles,
            {
                "interp_jax.io.a": "from interp_jax.io import b",
                "interp_jax.io.b": "if TYPE_CHECKING:\n    from interp_jax.io.a import x",
            },
        ),
        (
            behind_core,
            {"interp_jax.lens": "from interp_jax.core import catalog", "interp_jax.core": "__all__ = ['site']"},
        ),
        (behind_core, {"interp_jax.lens": "from interp_jax.core.site import site_p"}),
        (behind_core, {"interp_jax.lens": "from interp_jax import core\nx = core.catalog.Catalog"}),
        (heavy_imports, {"interp_jax.data.text": "from datasets import load_dataset"}),
        (heavy_imports, {"interp_jax.io.pt": "def load():\n    import torch"}),
        (private_jax, {"interp_jax.core.walk": "from jax._src import core"}),
        (behind_the_face, {"experiments.x": "from interp_jax.core import site"}),
        (behind_the_face, {"experiments.x": "from interp_jax.models import _pad"}),
        (sniffing, {"interp_jax.dictionaries.a": "x = hasattr(d, 'k')"}),
        (sniffing, {"interp_jax.dictionaries.a": "x = getattr(d, name, None)"}),
        (sniffing, {"interp_jax.dictionaries.a": "x = other._kept(1)"}),
        (lambda sources: too_long(sources, 320), {"interp_jax.core.walk": "x = 1\n" * 321}),
    ],
)
def test_a_planted_violation_is_found(check, planted: dict[str, str]) -> None:
    assert check(planted)


def test_every_room_is_on_the_face() -> None:
    face = read(PACKAGE)[PACKAGE]
    rooms = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")} - {"cli"}
    assert not [name for name in rooms if f'"{name}"' not in face]


def test_what_is_allowed_passes() -> None:
    sources = {
        "interp_jax": "from interp_jax.core import site",
        "interp_jax.core": "from interp_jax.core.site import site",
        "interp_jax.core.site": "import jax",
        "interp_jax.lens": "from interp_jax import metrics\ndef f():\n    import plotly",
        "interp_jax.metrics": "",
        "interp_jax.cli": "import interp_jax\nfrom interp_jax import lens",
    }
    for check in (wrong_arrows, cycles, heavy_imports, private_jax):
        none(check(sources))
