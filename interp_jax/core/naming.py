"""What the code of a function names, by its bytecode: what it reads, what it only writes, what it asks about values.

A function that counts its calls (`calls.append(x)`, `n += 1`, `seen[key] = x`, `self.last = x`) reads nothing there, so
what it counted is no part of what a program was traced with.
"""

from collections.abc import Collection, Mapping, Sequence
import dis
from functools import lru_cache
from types import CodeType
from typing import NamedTuple

from interp_jax.core.kinds import Lift

_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM")
_COMPARISONS = frozenset({"__eq__", "__ne__", "__lt__", "__gt__", "__le__", "__ge__", "__hash__"})
_CONSTANTS = (None, True, False, ...)
_EVERYTHING = frozenset(
    {"getattr", "hasattr", "vars", "dir", "__dict__", "asdict", "astuple", "fields", "replace", "copy", "deepcopy"}
    | {"attrgetter", "methodcaller"}
)
_HARMLESS = frozenset({*_ATTRIBUTES, "LOAD_CONST", "LOAD_SMALL_INT"})
_NOISE = frozenset({"CACHE", "NOP", "RESUME", "EXTENDED_ARG", "NOT_TAKEN"})
_OF_ARRAYS = frozenset({"id", "suppress", "str", "repr", "format"})  # what does another thing with a tracer
_OF_NUMBERS = frozenset({"isinstance", "issubclass", "isscalar", "type"})  # what does another thing than with a float
_SHOWS = frozenset({"__repr__", "__str__", "__format__"})
_SHOWN = frozenset({"str", "repr", "format", "print"})
_STORES = {"STORE_ATTR": 1, "STORE_SUBSCR": 2, "STORE_SLICE": 3}  # and the depth of what they write to
_WRITES = frozenset({"append", "appendleft", "add", "clear", "discard", "extend", "insert", "remove", "update"})


# What changes without anything being assigned, by module: all of it, or what is read of it.
CHANGING: Mapping[str, tuple[str, ...]] = {
    "random": (),
    "numpy.random": (),
    "secrets": (),
    "uuid": (),
    "time": (),
    "os": ("environ", "getenv", "urandom"),
    "sys": ("modules",),
    "numpy": ("random",),
    "jax": ("config",),
    "datetime": ("now", "today", "utcnow"),
}
# Methods of a class that is called, not of an instance.
MAKING = frozenset({"__init__", "__new__", "__post_init__", "__init_subclass__", "__class_getitem__"})
# Builtins that read what is not named.
DYNAMIC = ("globals", "locals", "eval", "exec", "input", "open", "__import__")


class Names(NamedTuple):
    """What the code of a function, and of those inside it, names.

    Attributes:
      variables: the globals and free variables that are read, each with the chains of attributes that are read of it.
      attributes: the attributes that are read of anything.
      written: the variables and attributes that are written to: what they hold is read if it is no plain container.
      modules: the modules that are imported.
      everything: whether any attribute of an object may be read, as by `getattr`.
      lift: what the code treats alike as a tracer: code that asks for types may do another thing with a tracer than
        with a float, code that catches errors another thing than with an array, and what code stores must be no tracer.
    """

    variables: dict[str, frozenset[tuple[str, ...]]]
    attributes: frozenset[str]
    written: frozenset[str]
    modules: frozenset[str]
    everything: bool
    lift: Lift


@lru_cache(maxsize=4096)
def names(code: CodeType) -> Names:
    """What a function's code names."""
    variables: dict[str, set[tuple[str, ...]]] = {}
    attributes: set[str] = set()
    written: set[str] = set()
    modules: set[str] = set()
    lifts, everything = [Lift.ALL], False
    steps = [step for step in dis.get_instructions(code) if step.opname not in _NOISE]
    for i, step in enumerate(steps):
        is_variable = _loads_variable(step, code)
        if is_variable or step.opname in _ATTRIBUTES:
            end = _written(steps, i)
            if end is not None:
                written.add(step.argval)
                lifts.append(Lift.NOTHING if _keeps(steps, i, end) else Lift.ALL)
            elif is_variable:
                variables.setdefault(step.argval, set()).add(_chain(steps, i))
            else:
                attributes.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            modules.add(step.argval)
        elif step.opname in ("COMPARE_OP", "CONTAINS_OP"):
            attributes |= _COMPARISONS
        elif step.opname.startswith("FORMAT_"):
            attributes |= _SHOWS
        lifts.append(Lift.NOTHING if _stores_tracer(steps, i, code) else _lift(steps, i))
    for inner in (names(constant) for constant in code.co_consts if isinstance(constant, CodeType)):
        for name, chains in inner.variables.items():
            if name not in code.co_cellvars:
                variables.setdefault(name, set()).update(chains)
        attributes |= inner.attributes
        written |= inner.written
        modules |= inner.modules
        lifts.append(inner.lift)
        everything |= inner.everything
    read = variables.keys() | attributes
    if read & _SHOWN:
        attributes |= _SHOWS
    if read & _OF_NUMBERS:
        lifts.append(Lift.ARRAYS)
    if read & _OF_ARRAYS:
        lifts.append(Lift.NOTHING)
    return Names(
        {name: frozenset(chains) for name, chains in variables.items()},
        frozenset(attributes),
        frozenset(written) - read,
        frozenset(modules),
        everything or bool(read & _EVERYTHING),
        max(lifts),
    )


def _loads_variable(step: dis.Instruction, code: CodeType) -> bool:
    if step.opname.endswith(("_GLOBAL", "_NAME", "_GLOBALS")):
        return step.opname.startswith("LOAD")
    return step.opname.startswith("LOAD") and "DEREF" in step.opname and step.argval in code.co_freevars


def _chain(steps: Sequence[dis.Instruction], i: int) -> tuple[str, ...]:
    """The attributes that are read one of the other from what step i loads."""
    found = []
    for step in steps[i + 1 :]:
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            break
        found.append(step.argval)
    return tuple(found)


def _written(steps: Sequence[dis.Instruction], i: int) -> int | None:
    """The step that writes to what step i loads, if that is all that is done with it, else None.

    It is followed on the stack, where it stands at depth 1.
    """
    depth, method = 1, ""
    for j in range(i + 1, len(steps)):
        step, before = steps[j], depth
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs or step.opname.startswith(("RETURN", "YIELD")):
            return None
        depth += dis.stack_effect(step.opcode, step.arg, jump=False)
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and before == 1:
            method = step.argval
        elif step.opname.startswith("CALL") and depth <= 1:  # x.append(y)
            return j if method in _WRITES and steps[j + 1].opname == "POP_TOP" else None
        elif step.opname == "BINARY_OP" and depth == 1 and step.argrepr != "[]":  # x += y
            return j if _assigns(step) and _stores(steps, j, steps[i].argval) else None
        elif step.opname in _STORES and depth <= 0:
            if steps[j - 1].opname == "SWAP":  # x[k] += y, x.a += y
                return j if depth == 0 else None
            return j if depth == -1 and before == _STORES[step.opname] else None
        elif depth <= 0:
            return None
    return None


def _keeps(steps: Sequence[dis.Instruction], i: int, j: int) -> bool:
    """Whether step j writes more than a constant, which may be a tracer, to what step i loads."""
    if steps[j].opname not in _STORES:
        return not all(step.opname in _HARMLESS or not step.opname.startswith("LOAD_") for step in steps[i + 1 : j])
    while steps[i].opname in _ATTRIBUTES:
        i -= 1
    return not _is_constant(steps, j, i - 1)


def _is_constant(steps: Sequence[dis.Instruction], j: int, value: int) -> bool:
    """Whether step j stores a constant, from step `value`, or adds one."""
    if steps[j - 1].opname == "SWAP" or _assigns(steps[j - 1]):
        value = next(k for k in range(j - 1, 0, -1) if steps[k].opname != "SWAP") - 1
    return steps[value].opname in ("LOAD_CONST", "LOAD_SMALL_INT")


def _stores_tracer(steps: Sequence[dis.Instruction], j: int, code: CodeType) -> bool:
    """Whether step j stores more than a constant where that outlives the call."""
    step, value = steps[j], j - 1
    if step.opname == "STORE_ATTR" and code.co_name not in ("__init__", "__post_init__"):
        while steps[value].opname in _ATTRIBUTES:
            value -= 1
        return not _is_constant(steps, j, value - 1)
    outlives = step.opname == "STORE_GLOBAL" or (step.opname == "STORE_DEREF" and step.argval in code.co_freevars)
    return outlives and not _is_constant(steps, j, value)


def _assigns(step: dis.Instruction) -> bool:
    return step.argrepr.endswith("=")


def _stores(steps: Sequence[dis.Instruction], j: int, name: str) -> bool:
    """Whether the result of step j goes back to where it came from."""
    step = next(step for step in steps[j + 1 :] if step.opname != "SWAP")
    return step.opname.startswith("STORE") and step.argval == name


def _lift(steps: Sequence[dis.Instruction], i: int) -> Lift:
    step = steps[i]
    if step.opname in ("CHECK_EXC_MATCH", "CHECK_EG_MATCH"):
        return Lift.NOTHING
    if step.opname == "PUSH_EXC_INFO" and steps[i + 1].opname == "POP_TOP":  # a bare except
        return Lift.NOTHING
    if step.opname == "IS_OP":
        last = steps[i - 1]
        return Lift.ALL if last.opname == "LOAD_CONST" and last.argval in _CONSTANTS else Lift.NOTHING
    return Lift.ARRAYS if step.opname.startswith(("MATCH_", "FORMAT_")) else Lift.ALL


def changes_unseen(module: str, attributes: Collection[str]) -> bool:
    """Whether what is read of a module, these attributes, changes unseen."""
    changing = CHANGING.get(module)
    return changing is not None and (not changing or not set(changing).isdisjoint(attributes))
