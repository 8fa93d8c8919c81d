"""The heads of the dashboard: every head of a survey as `describe_head` has it, kept as one file of JSON."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
import json
import math
from pathlib import Path
from typing import Any

from interp_jax.heads import Survey
from interp_jax.io.files import replacing
from interp_jax.report.heads import Head

N_LISTED = 4  # tokens of a head in the list


@dataclass(frozen=True)
class HeadList:
    """What the dashboard shows of heads, as JSON has it.

    Attributes:
      rows: a line of the list for each head, layer by layer.
      pages: what a page shows of each, `[layer][head]`.
    """

    rows: list[dict[str, Any]]
    pages: list[list[dict[str, Any]]]

    def save(self, path: str | Path) -> None:
        """Writes a file, whole or not at all."""
        with replacing(Path(path)) as new:
            new.write_text(json.dumps({"rows": self.rows, "pages": self.pages}), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "HeadList":
        """Reads what `save` wrote.

        Raises:
          ValueError: it is something else.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(found["rows"], found["pages"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}: is no list of heads; remove it, and it is made anew") from None


def head_list(survey: Survey, heads: Iterable[Head]) -> HeadList:
    """The list and the pages of all heads of a survey, which come from `describe_head`, layer by layer.

    Example:
      >>> import jax
      >>> from interp_jax import heads, models, report
      >>> model, tokenizer = models.load("microworld")
      >>> texts = jax.random.randint(jax.random.key(0), (4, 12), 3, 641)
      >>> found = heads.survey(models.forward)(model, [texts])
      >>> strings = tokenizer.to_str_tokens(range(tokenizer.d_vocab))
      >>> each = [report.describe_head(found, i, j, texts, strings) for i in range(4) for j in range(4)]
      >>> shown = report.head_list(found, each)
      >>> len(shown.rows), shown.pages[1][2]["head"]
      (16, 2)
    """
    rows: list[dict[str, Any]] = []
    pages: list[list[dict[str, Any]]] = [[] for _ in range(survey.share.shape[0])]
    for one in heads:
        at = one.layer, one.head
        pages[one.layer].append(_page(one))
        rows.append(
            {
                "layer": one.layer,
                "head": one.head,
                "share": _finite(one.share),
                "scores": {name.replace("_", " "): _finite(score[at]) for name, score in survey.scores.items()},
                "looks_at": [word for word, _ in one.looks_at[:N_LISTED]],
                "writes": [word for word, _ in one.writes[:N_LISTED]],
            }
        )
    return HeadList(rows, pages)


def _page(head: Head) -> dict[str, Any]:
    def examples(several: Any) -> list[dict[str, Any]]:
        return [asdict(one) for one in several]

    intervals = [{"low": low, "high": high, "examples": examples(found)} for low, high, found in head.intervals]
    return asdict(head) | {"top": examples(head.top), "intervals": intervals}


def _finite(x: Any) -> float | None:
    return round(float(x), 4) if math.isfinite(x) else None
