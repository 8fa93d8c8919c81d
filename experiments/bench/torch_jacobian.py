"""The Jacobian lens as a plain loop in torch over a model of transformers: what ours is compared with."""

from typing import Any

import torch


def streams(peer: Any, tokens: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What each block of a decoder is given and what the last one gives, `[batch position d_model]`, with a graph.

    Parameters stay out of the graph, which begins at the first block.
    """
    peer.requires_grad_(False)
    blocks = peer.transformer.h if hasattr(peer, "transformer") else peer.model.layers
    given: list[torch.Tensor] = []
    last: list[torch.Tensor] = []

    def before(_: Any, args: tuple, kwargs: dict) -> None:
        h = args[0] if args else kwargs["hidden_states"]
        given.append(h if h.requires_grad else h.requires_grad_(True))

    def after(_: Any, args: tuple, output: Any) -> None:
        last.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
    handles.append(blocks[-1].register_forward_hook(after))
    try:
        with torch.enable_grad():
            peer.base_model(tokens, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return given, last[0]


def by_batch(
    peer: Any, tokens: torch.Tensor, first: int, end: int, width: int, n_rows: int | None = None
) -> torch.Tensor:
    """J `[layer row d_model]` of one text: the text `width` times in a batch, each with a row's own basis vector.

    Positions from `first` up to `end` count. One forward pass; each backward pass gives `width` rows of every layer.
    """
    given, last = streams(peer, tokens.expand(width, -1))
    n_rows = n_rows or last.shape[-1]
    found = torch.zeros(len(given), n_rows, last.shape[-1])
    for start in range(0, n_rows, width):
        rows = torch.arange(start, min(start + width, n_rows))
        cotangent = torch.zeros_like(last)
        cotangent[torch.arange(len(rows)), first:end, rows] = 1
        slopes = torch.autograd.grad(last, given, cotangent, retain_graph=True)
        for layer, slope in enumerate(slopes):
            found[layer, rows] = slope[: len(rows), first:end].mean(1)
    return found


def by_vmap(
    peer: Any, tokens: torch.Tensor, first: int, end: int, width: int, n_rows: int | None = None
) -> torch.Tensor:
    """The same with the text once and basis vectors under torch's own vmap, `is_grads_batched`."""
    given, last = streams(peer, tokens)
    n_rows = n_rows or last.shape[-1]
    parts = []
    for start in range(0, n_rows, width):
        rows = torch.arange(start, min(start + width, n_rows))
        cotangents = torch.zeros(len(rows), *last.shape)
        cotangents[torch.arange(len(rows)), :, first:end, rows] = 1
        slopes = torch.autograd.grad(last, given, cotangents, retain_graph=True, is_grads_batched=True)
        parts.append(torch.stack([slope[:, 0, first:end].mean(1) for slope in slopes]))
    return torch.cat(parts, 1)
