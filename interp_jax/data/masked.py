"""Masked language modelling: word pieces trained on a text, rows of them, and what is hidden from the model.

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
CONFIG = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}  # of its tokenizer


def wordpieces(texts: Iterable[str], d_vocab: int) -> "tokenizers.Tokenizer":
    """A lower-case WordPiece tokenizer of at most d_vocab tokens, trained on the texts; encoding puts [CLS] and [SEP].

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
    """Each text cut to rows [CLS] … [SEP], padded on the right: int32 [row position]. Texts without words give none.

    >>> tokenizer = wordpieces(["a b c"], d_vocab=20)
    >>> rows(tokenizer, ["a b c"], 4).tolist() == [[CLS, *tokenizer.encode("a b").ids[1:3], SEP],
    ...                                            [CLS, tokenizer.token_to_id("c"), SEP, PAD]]
    True
    """
    width = n_positions - 2
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
    """What the model sees, and which tokens it must tell.

    Of the tokens to tell, 8 in 10 are [MASK], 1 in 10 is a random token, 1 in 10 stands. Special tokens are never
    among them.

    Args:
      rng: numpy's.
      tokens: int32 [row position].
      d_vocab: size of the vocabulary.
      rate: share of the tokens to tell.

    Returns:
      int32 [row position], and bool [row position].

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
    """What is told without looking: accuracy of the commonest token, cross-entropy of the tokens' frequencies, in nats.

    Args:
      train, heldout: int32 [row position]; frequencies are the former's, with one added to each.

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
    """The card of an encoder as a Markdown page, from what the training script measured."""
    config = card["config"]
    return CARD.format(**{**config["model"], **config, **card})
