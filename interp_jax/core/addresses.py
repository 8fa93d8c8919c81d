"""Addresses: names of sites with a layer number, a glob, or TransformerLens's spelling."""

from typing import NamedTuple


class Target(NamedTuple):
    """What an address means: a site, and one layer of it or (None) every layer."""

    key: str
    name: str
    layer: int | None


def split_address(address: str) -> tuple[str, int | None]:
    """An address without its layer number and without TransformerLens's `hook_`."""
    parts = [part.removeprefix("hook_") for part in address.split(".")]
    numbers = [part for part in parts if part.isdecimal()]
    if len(numbers) > 1:
        raise ValueError(f"address {address!r} has more than one layer number")
    return ".".join(part for part in parts if not part.isdecimal()), int(numbers[0]) if numbers else None


def numbered(address: str, name: str, layer: int) -> str:
    """`name` with a layer number where `address` has it."""
    place = [part.isdecimal() for part in address.split(".")].index(True)
    parts = name.split(".")
    return ".".join([*parts[:place], str(layer), *parts[place:]])
