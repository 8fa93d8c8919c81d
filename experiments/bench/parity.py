"""Prints how far this library is from transformers on random models of every family: a row a kind, a column a check.

    python experiments/bench/parity.py [seed ...]        (needs the extra `parity`; default seeds 0 1 2)

Each number is the largest difference over seeds: of logits without and with padding on either side, of the layers
scanned, of the same folder loaded as bfloat16 (relative), and of transformers on the folder that we save. `greedy` is
how many of the tokens that both write are the same. Every weight, bias and norm is moved, so that a swapped one shows.
"""

from collections.abc import Iterator
from pathlib import Path
import sys
import tempfile
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers

from interp_jax import models
from peers import KINDS, peer_of


def theirs(peer: Any, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    seen = torch.tensor(mask).long()
    with torch.no_grad():
        out = peer(torch.tensor(tokens), attention_mask=seen, position_ids=(seen.cumsum(-1) - 1).clamp(min=0))
    return out.logits.numpy()


def checks(kind: str, seed: int) -> Iterator[tuple[str, float]]:
    """(name, difference), for one random model."""
    peer, rng = peer_of(kind, seed), np.random.default_rng(seed)
    tokens = rng.integers(1, 61, (4, 20))
    masks = {side: np.ones((4, 20), bool) for side in ("plain", "left", "right")}
    for row in range(4):
        masks["left"][row, : 3 * row] = masks["right"][row, 20 - 3 * row :] = False
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(Path(folder, "peer"))
        model, _ = models.load(Path(folder, "peer"))
        scan, _ = models.load(Path(folder, "peer"), scan_layers=True)
        half, _ = models.load(Path(folder, "peer"), dtype="bfloat16")
        models.save(Path(folder, "ours"), model)
        back = type(peer).from_pretrained(Path(folder, "ours"), attn_implementation="eager").eval()
    for name, mask in masks.items():
        want = theirs(peer, tokens, mask)
        yield name, np.abs(np.asarray(models.forward(model, tokens, attention_mask=mask)) - want)[mask].max()
    got, left = np.asarray(models.forward(scan, tokens, attention_mask=masks["left"])), masks["left"]
    want = theirs(peer, tokens, left)
    yield "scanned", np.abs(got - want)[left].max()
    plain = theirs(peer, tokens, masks["plain"])
    rounded = models.forward(half, tokens).astype(jnp.float32)
    yield "bfloat16", float(np.abs(rounded - plain).max() / np.abs(plain).max())
    yield "saved", np.abs(theirs(back, tokens, masks["plain"]) - plain).max()
    if not model.causal:
        return
    options = {"do_sample": False, "max_new_tokens": 15, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad():
        text = peer.generate(torch.tensor(tokens), attention_mask=torch.tensor(left).long(), **options).numpy()
    yield "greedy", (models.generate(model, tokens, 15, attention_mask=left) == text)[:, 20:].mean()


if __name__ == "__main__":
    seeds = [int(seed) for seed in sys.argv[1:]] or [0, 1, 2]
    transformers.logging.set_verbosity_error()
    columns = ("plain", "left", "right", "scanned", "bfloat16", "saved", "greedy")
    print(f"{'':34}" + "".join(f"{name:>10}" for name in columns) + f"   seeds {seeds}")
    for kind in (*KINDS, "bert"):
        rows = [dict(checks(kind, seed)) for seed in seeds]
        greedy = f"{min(row['greedy'] for row in rows):.0%}" if "greedy" in rows[0] else "-"
        cells = [f"{max(row[name] for row in rows):10.1e}" for name in columns[:-1]]
        print(f"{kind:34}{''.join(cells)}{greedy:>10}", flush=True)
