"""A page of what every layer would say at every token: layers down, tokens across, the top words on hover. No network.

In the spirit of nostalgebraist 2020, "interpreting GPT: the logit lens", and of the plots of Belrose et al. 2023,
arXiv:2303.08112. Several lenses of one prompt stand on one page, one of them shown.
Caveat: a word that a lens reads at a layer is the lens's word: whether the model uses it there, an intervention tells.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from interp_jax.report.rendering import render, visible


def lens_page(
    readings: Mapping[str, Any],
    tokens: Sequence[str],
    words: Callable[[Any], Sequence[str]],
    *,
    title: str,
    logits: Any = None,
    mask: Any = None,
    layers: Sequence[str] | None = None,
    k: int = 8,
) -> str:
    """The words of one prompt's layers, as one HTML text that needs nothing else. Whatever it shows is escaped.

    Args:
      readings: name of a lens -> its logits, float of any precision `[layer position d_vocab]`, of `lens.logit_lens`, a
        `lens.TunedLens` or a `lens.JacobianLens`.
      tokens: the text of each of the prompt's tokens, as `tokenizer.to_str_tokens` gives.
      words: ids `[n]` -> their texts, such as `tokenizer.to_str_tokens`.
      title: the heading.
      logits: the model's own, `[position d_vocab]`, a row below the layers; words that are its first one are marked.
      mask: bool `[position]`, False at padding, which is cut away.
      layers: the name of each layer; None: its number.
      k: how many words a cell tells.

    Raises:
      ValueError: no lens, shapes that do not fit, a prompt of padding alone, logits that are not finite, or k below 1.

    Example:
      >>> import numpy as np
      >>> from interp_jax import report
      >>> read = {"logit lens": np.eye(3)[None, :2]}
      >>> html = report.lens_page(read, ["<bos>", " a"], lambda ids: [f"w{i}" for i in ids], title="<one>", k=2)
      >>> "&lt;one&gt;" in html, '"w0"' in html, "http" in html
      (True, True, False)
    """
    arrays = {name: np.asarray(x).astype(np.float32) for name, x in readings.items()}
    n = len(tokens)
    if not arrays or k < 1:
        raise ValueError(f"lens_page: {len(arrays)} lenses and k={k} words: give at least one of each")
    sizes = next(iter(arrays.values())).shape
    for name, x in arrays.items():
        if x.ndim != 3 or x.shape[1] != n or x.shape != sizes or not x.size:
            raise ValueError(
                f"lens_page: reading {name!r} of shape {list(x.shape)} is not [layer position d_vocab] of {n} tokens, "
                "as all of them must be alike; take one prompt"
            )
    if logits is not None:
        arrays[""] = np.asarray(logits).astype(np.float32)[None]
        if arrays[""].shape != (1, *sizes[1:]):
            raise ValueError(f"lens_page: logits of shape {list(arrays[''].shape[1:])}, wanted {list(sizes[1:])}")
    for name, x in arrays.items():
        if not np.isfinite(x).all():
            raise ValueError(f"lens_page: {f'reading {name!r}' if name else 'logits'} has infinite values or nan")
    names = [str(i) for i in range(sizes[0])] if layers is None else list(layers)
    if len(names) != sizes[0]:
        raise ValueError(f"lens_page: {len(names)} names for {sizes[0]} layers")
    real = np.ones(n, bool) if mask is None else np.asarray(mask, bool)
    if real.shape != (n,) or not real.any():
        raise ValueError(
            f"lens_page: a mask of shape {list(real.shape)} with {int(real.sum())} real tokens does not fit {n} "
            "tokens; give bool [position], False at padding"
        )
    cells = {name: _top(x[:, real], k) for name, x in arrays.items()}
    ids = np.unique(np.concatenate([top.ravel() for top, _ in cells.values()]))
    rows = {
        name: {"words": np.searchsorted(ids, top).tolist(), "thousandths": np.rint(1000 * shares).astype(int).tolist()}
        for name, (top, shares) in cells.items()
    }
    data = {
        "tokens": [_shown(token) for token, kept in zip(tokens, real, strict=True) if kept],
        "words": [_shown(word) for word in words(ids)],
        "layers": names,
        "own": rows.pop("", None),
        "lenses": rows,
    }
    return render("lens.html", title=title, data=data)


def _top(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids of the largest logits `[layer position k]`, largest first, and their probabilities."""
    k = min(k, logits.shape[-1])
    some = np.argpartition(-logits, k - 1, axis=-1)[..., :k]
    values = np.take_along_axis(logits, some, -1)
    order = np.argsort(-values, axis=-1, kind="stable")
    largest = logits.max(-1, keepdims=True)
    total = np.exp(logits - largest).sum(-1, keepdims=True)
    shares = np.exp(np.take_along_axis(values, order, -1) - largest) / total
    return np.take_along_axis(some, order, -1), shares


def _shown(token: str) -> str:
    return visible(token).strip() or "␣"
