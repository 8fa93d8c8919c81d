"""A page of attention patterns: every head a small map, one of them large, its tokens on both axes. No network.

Row t of a map is where token t looks, column s is who looks at token s. In the spirit of CircuitsVis (Cooney and Nanda
2022) and of the views of Vig 2019, arXiv:1906.05714.
Caveat: where a head looks is not what it moves (Jain and Wallace 2019, arXiv:1902.10186): confirm by patching.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp_jax.report.rendering import render, visible


def attention_page(
    pattern: Any,
    tokens: Sequence[str],
    *,
    title: str,
    mask: Any = None,
    scores: Mapping[str, Any] | None = None,
) -> str:
    """The patterns of one prompt, as one HTML text that needs nothing else. Whatever it shows is escaped.

    Args:
      pattern: float of any precision `[layer head query key]`, one prompt of a capture of `blocks.attn.pattern`. Rows
        need not sum to 1: it may be an edited one. Shown to three digits.
      tokens: the text of each of the prompt's tokens, as `tokenizer.to_str_tokens` gives.
      title: the heading.
      mask: bool `[position]`, False at padding, which is cut away.
      scores: name -> `[layer head]`, numbers between 0 and 1 that label the heads, such as `heads.induction_scores`;
        nan where there is none.

    Raises:
      ValueError: shapes that do not fit, a prompt of padding alone, or a pattern with values that are negative or not
        finite.

    Example:
      >>> import numpy as np
      >>> from interp_jax import report
      >>> html = report.attention_page(np.eye(2)[None, None], ["<bos>", " cat"], title="<one> head")
      >>> "&lt;one&gt; head" in html, "<bos>" in html, "http" in html
      (True, False, False)
    """
    values = np.asarray(pattern).astype(np.float32)  # bfloat16 has no arithmetic of its own in numpy
    n = len(tokens)
    if values.ndim != 4 or values.shape[2:] != (n, n) or not values.size:
        raise ValueError(
            f"attention_page: a pattern of shape {list(values.shape)} is not [layer head query key] of {n} tokens; "
            "take one prompt of blocks.attn.pattern"
        )
    real = np.ones(n, bool) if mask is None else np.asarray(mask, bool)
    if real.shape != (n,) or not real.any():
        raise ValueError(
            f"attention_page: a mask of shape {list(real.shape)} with {int(real.sum())} real tokens does not fit {n} "
            "tokens; give bool [position], False at padding"
        )
    values = values[:, :, real][..., real]
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(
            "attention_page: the pattern has negative or infinite values or nan; take blocks.attn.pattern, not "
            "blocks.attn.attn_scores"
        )
    labels = {name: np.asarray(score).astype(np.float32) for name, score in (scores or {}).items()}
    for name, score in labels.items():
        if score.shape != values.shape[:2]:
            raise ValueError(
                f"attention_page: scores {name!r} of shape {list(score.shape)} are not [layer head] "
                f"{list(values.shape[:2])}"
            )
    data = {
        "tokens": [visible(token).strip() or "␣" for token, kept in zip(tokens, real, strict=True) if kept],
        "thousandths": np.rint(1000 * values).astype(int).reshape(*values.shape[:2], -1).tolist(),
        "scores": {name: _numbers(score) for name, score in labels.items()},
    }
    return render("attention.html", title=title, data=data)


def _numbers(score: np.ndarray) -> list[list[float | None]]:
    """A score as nested lists, None for nan, which JSON has not."""
    return [[round(float(x), 3) if np.isfinite(x) else None for x in row] for row in score]
