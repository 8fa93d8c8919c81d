"""Tokenizers from the metadata of llama.cpp's files: byte-level BPE ("gpt2") and sentencepiece's BPE ("llama").

A file names how text is split before the merges (`tokenizer.ggml.pre`) and does not say it: the table here does, as
llama.cpp's src/llama-vocab.cpp and the models' own tokenizer.json do. sentencepiece's merges are not in the file: they
follow from its vocabulary, best score first (Kudo and Richardson 2018), in Gemma's from the order of the words.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
import warnings

from interp_jax.models.tokenizer import Tokenizer

_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "sep": "seperator", "mask": "mask"}
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # kinds of tokens

_ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

# What a piece of text is, by the name of the pre-tokenizer. None: by GPT-2's own expression, in `ByteLevel`.
SPLITS: dict[str, str | None] = {
    **dict.fromkeys("gpt-2 phi-2 mpt olmo jais exaone4 gigachat mellum modern-bert trillion".split()),
    **dict.fromkeys("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2".split()),
    **dict.fromkeys(
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe".split(),
        f"{_ENDING}|{_WORD}|\\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}",
    ),
    **dict.fromkeys(
        "qwen2 deepseek-r1-qwen stablelm2 megrez kormo solar-open".split(),
        f"{_ENDING}|{_WORD}|\\p{{N}}|{_SYMBOLS}|{_SPACES}",
    ),
    "tekken": f"{_CASED[0]}|{_CASED[1]}|\\p{{N}}|{_SLASHES}|{_SPACES}",
    **dict.fromkeys(
        "gpt-4o llama4 kanana2".split(),
        f"{_CASED[0]}{_ENDING}?|{_CASED[1]}{_ENDING}?|\\p{{N}}{{1,3}}|{_SLASHES}|{_SPACES}",
    ),
}
_DIGITS_FIRST = frozenset("smollm starcoder refact command-r codeshell exaone minerva-7b mellum2".split())
# Words that stand in the vocabulary are not merged; a text begins with bos unless the file says otherwise.
_WHOLE_WORDS = frozenset("llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 tekken".split())
_COMPOSED = frozenset({"qwen2"})  # characters are composed first (NFC)


def read(file: Path, metadata: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer in a file whose header was read; None if it has none, or, with a warning, none that can be made.

    A model is of use without its tokenizer, so a kind that is not known does not keep it from loading.
    """
    ggml = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    kind, pre = ggml.get("model"), ggml.get("pre", "default")
    if metadata.get("general.architecture") == "gpt2" and pre == "default":
        pre = "gpt-2"
    if not ggml.get("tokens") or kind in (None, "none", "no_vocab"):
        return None
    if kind not in ("gpt2", "llama") or (kind == "gpt2" and pre not in SPLITS):
        what = f"pre-tokenizer {pre!r}" if kind == "gpt2" else f"tokenizer {kind!r}"
        warnings.warn(
            f"{file}: {what} is not known here, and the model is loaded without a tokenizer; take its own: "
            "models.Tokenizer.from_folder(a folder with its tokenizer.json)",
            stacklevel=2,
        )
        return None
    try:
        backend = _byte_level(ggml, pre) if kind == "gpt2" else _sentencepiece(ggml, metadata["general.architecture"])
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{file}: its tokenizer is damaged ({error}); download it again") from None
    names = {f"{ours}_token": ggml.get(f"{theirs}_token_id") for ours, theirs in _SPECIAL.items()}
    config: dict[str, Any] = {
        name: ggml["tokens"][i] for name, i in names.items() if i is not None and i < len(ggml["tokens"])
    }
    _add_tokens(backend, ggml)
    _add_ends(backend, config, ggml, bos=kind == "llama" or pre in _WHOLE_WORDS)
    templates = _templates(metadata)
    return Tokenizer(backend, config | ({"chat_template": templates} if templates else {}))


def _byte_level(ggml: Mapping[str, Any], pre: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate(ggml["tokens"])}
    merges = [(merge[:at], merge[at + 1 :]) for merge in ggml.get("merges", ()) if (at := merge.find(" ", 1)) > 0]
    for left, right in merges:  # the package would panic
        if not (left in vocabulary and right in vocabulary and left + right in vocabulary):
            raise ValueError(f"the merge of {left!r} and {right!r} is not of its vocabulary")
    backend = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in _WHOLE_WORDS))
    split = SPLITS[pre]
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    if pre in _DIGITS_FIRST:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    if pre in _COMPOSED:
        backend.normalizer = normalizers.NFC()
    return backend


def _sentencepiece(ggml: Mapping[str, Any], architecture: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    # Of Gemma's tokens, those of spaces are written with spaces, which the normalizer takes out of every text.
    tokens = ["▁" * len(token) if token.isspace() and not token.strip(" ") else token for token in ggml["tokens"]]
    ordered = architecture.startswith("gemma")
    scores = range(0, -len(tokens), -1) if ordered else ggml["scores"]
    unknown = ggml.get("unknown_token_id")
    backend = Tokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)},
            merges_of(tokens, scores),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces, words = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    steps = [words, decoders.ByteFallback(), decoders.Fuse()]
    backend.normalizer = spaces
    if ggml.get("add_space_prefix", True):
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
        steps.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(steps)
    return backend


def merges_of(tokens: list[str], scores: Any) -> list[tuple[str, str]]:
    """Every pair of tokens that makes a token, the best-scored first; of one token, the longest first half.

    Example:
      >>> from interp_jax.models.gguf_tokenizer import merges_of
      >>> merges_of(["a", "b", "ab", "ba", "aba"], [0, 0, -1, -2, -3])
      [('a', 'b'), ('b', 'a'), ('ab', 'a'), ('a', 'ba')]
    """
    same = {token: token for token in tokens}  # one string of each, since there may be millions of halves
    found = []
    for token, score in zip(tokens, scores, strict=True):
        for at in range(len(token) - 1, 0, -1):
            left = same.get(token[:at])
            right = left and same.get(token[at:])
            if left and right:
                found.append((-score, -at, left, right))
    found.sort(key=lambda item: item[:2])
    return [(left, right) for _, _, left, right in found]


def _add_tokens(backend: Any, ggml: Mapping[str, Any]) -> None:
    """Control tokens are special; those that a user has defined are found whole in any text."""
    from tokenizers import AddedToken

    pairs = list(zip(ggml["tokens"], ggml.get("token_type") or (), strict=False))
    special = [token for token, kind in pairs if kind in (UNKNOWN, CONTROL) and token]
    whole = [token for token, kind in pairs if kind == USER_DEFINED and backend.token_to_id(token) is not None]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in whole])


def _add_ends(backend: Any, config: Mapping[str, Any], ggml: Mapping[str, Any], *, bos: bool) -> None:
    """The tokens that a text begins and ends with, if the file says so; `bos`: where it does not say."""
    from tokenizers.processors import TemplateProcessing

    first = [config["bos_token"]] if ggml.get("add_bos_token", bos) and "bos_token" in config else []
    last = [config["eos_token"]] if ggml.get("add_eos_token", False) and "eos_token" in config else []
    if first or last:
        special = [(token, backend.token_to_id(token)) for token in {*first, *last}]
        backend.post_processor = TemplateProcessing(single=[*first, "$A", *last], special_tokens=special)


def _templates(metadata: Mapping[str, Any]) -> Any:
    """The chat template, or several by name."""
    whole = "tokenizer.chat_template"
    named = {key.removeprefix(f"{whole}."): text for key, text in metadata.items() if key.startswith(f"{whole}.")}
    if not named:
        return metadata.get(whole)
    named = ({"default": metadata[whole]} if whole in metadata else {}) | named
    return [{"name": name, "template": text} for name, text in named.items()]
