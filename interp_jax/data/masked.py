"""Masked language modelling: a tokenizer of word pieces, rows of them, and what is hidden from the model.

Reference: Devlin et al. (2019), "BERT", https://arxiv.org/abs/1810.04805.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tokenizers

CARD = """---
license: cc-by-sa-4.0
library_name: interp_jax
pipeline_tag: fill-mask
---
# {name}

An encoder of the BERT architecture, {n_layers} layers, d_model {d_model}, {n_heads} heads, {n_parameters:,} parameters
in bfloat16, trained from scratch by masked language modelling on the validation and test files of WikiText-2
(CC-BY-SA-3.0) and the dev file of Universal Dependencies English EWT (CC-BY-SA-4.0): {n_tokens:,} word pieces, one row
in twenty held out. Its {d_vocab:,} lower-case word pieces were trained on the same texts. It is small and has seen
little: a model to try encoders and probes on, not one of English.

Load it with `models.load("{name}")`, or `models.load("{name}@{version}")`.

| on held-out rows, one token in seven hidden | |
|---|---|
| hidden pieces told | {accuracy:.1%} |
| the same by always saying the commonest piece | {commonest:.1%} |
| cross-entropy, nats | {cross_entropy:.3f} |
| the same by the pieces' frequencies | {unigram:.3f} |

`python experiments/train_bert.py`, seed {seed}: {n_steps:,} steps of {batch_size} rows of {n_positions} pieces. Muon
for the matrices, AdamW for the rest, cosine schedule.
"""

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4
PAD, UNK, CLS, SEP, MASK = range(5)
# what tokenizer_config.json says
CONFIG = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}


def wordpieces(texts: Iterable[str], d_vocab: int) -> "tokenizers.Tokenizer":
    """Trains a lower-case WordPiece tokenizer of at most d_vocab tokens. It encodes a text as [CLS] … [SEP].

    Example:
      >>> tokenizer = wordpieces(["the cat sat", "the cats sat"] * 5, d_vocab=40)
      >>> tokenizer.encode("The cats").tokens
      ['[CLS]', 'the', 'cats', '[SEP]']
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    built = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=d_vocab, special_tokens=list(SPECIAL), show_progress=False)
    built.train_from_iterator(texts, trainer)
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return built


def rows(tokenizer: "tokenizers.Tokenizer", texts: Iterable[str], n_positions: int) -> np.ndarray:
    """Cuts each text to rows [CLS] … [SEP] of at most n_positions word pieces, padded on the right.

    Returns:
      int32 `[row n_positions]`, the rows of the first text first. A text without words gives no row.

    Raises:
      ValueError: n_positions is below 3, so that a row has no place for a word piece.

    Example:
      >>> tokenizer = wordpieces(["a b c"], d_vocab=20)
      >>> rows(tokenizer, ["a b c"], 4).tolist() == [[CLS, *tokenizer.encode("a b").ids[1:3], SEP],
      ...                                            [CLS, tokenizer.token_to_id("c"), SEP, PAD]]
      True
    """
    width = n_positions - 2
    if width < 1:
        raise ValueError(f"rows: n_positions={n_positions}: [CLS] and [SEP] leave no place for text; give at least 3")
    cut: list[list[int]] = []
    for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False):
        cut += [encoding.ids[start : start + width] for start in range(0, len(encoding.ids), width)]
    tokens = np.full((len(cut), n_positions), PAD, np.int32)
    for row, ids in enumerate(cut):
        tokens[row, : len(ids) + 2] = [CLS, *ids, SEP]
    return tokens


def hide(
    rng: np.random.Generator, tokens: np.ndarray, d_vocab: int, rate: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses the tokens that the model must tell, and hides them.

    Of those, 8 in 10 are replaced by [MASK], 1 in 10 by a random token, and 1 in 10 stays as it is. Special tokens are
    never chosen.

    Args:
      rng: a random generator of numpy.
      tokens: int32 `[row position]`.
      d_vocab: size of the vocabulary.
      rate: the probability with which a token is chosen.

    Returns:
      The tokens that the model sees, int32 `[row position]`, and which it must tell, bool `[row position]`.

    Example:
      >>> tokens = np.array([[CLS, 7, 8, 9, SEP, PAD]], np.int32)
      >>> seen, told = hide(np.random.default_rng(0), tokens, 20, rate=1.0)
      >>> told.tolist(), bool((seen[~told] == tokens[~told]).all())
      ([[False, True, True, True, False, False]], True)
    """
    told = (rng.random(tokens.shape) < rate) & (tokens >= len(SPECIAL))
    kind = rng.random(tokens.shape)
    seen = np.where(told & (kind < 0.8), np.int32(MASK), tokens)
    random_token = rng.integers(len(SPECIAL), d_vocab, tokens.shape, np.int32)
    return np.where(told & (kind >= 0.9), random_token, seen), told


def baselines(train: np.ndarray, heldout: np.ndarray) -> dict[str, float]:
    """How well one tells held-out tokens by the frequencies of tokens alone, without their context.

    Args:
      train: int32 `[row position]`, where the frequencies are counted; one is added to the count of each token.
      heldout: int32 `[row position]`, where they are tried. Special tokens do not count in either.

    Returns:
      "commonest", the accuracy of always saying the commonest token, and "unigram", the cross-entropy in nats.

    Example:
      >>> found = baselines(np.array([[7, 7, 7, 8]]), np.array([[7, 8]]))
      >>> found["commonest"], round(found["unigram"], 3)
      (0.5, 1.04)
    """
    counted, asked = (tokens[tokens >= len(SPECIAL)] for tokens in (train, heldout))
    counts = np.bincount(counted, minlength=max(counted.max(), asked.max()) + 1) + 1
    counts[: len(SPECIAL)] = 0
    surprise = np.log(counts.sum()) - np.log(counts[asked])
    return {"commonest": float((asked == counts.argmax()).mean()), "unigram": float(surprise.mean())}


def render(card: dict[str, Any]) -> str:
    """The card of an encoder as a Markdown page, from what `experiments/train_bert.py` has measured."""
    config = card["config"]
    return CARD.format(**{**config["model"], **config, **card})
