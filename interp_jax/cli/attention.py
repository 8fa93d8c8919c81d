"""`interp-jax attention`: a page that shows where every head looks in a prompt, and what kind of head each is."""

from pathlib import Path
from typing import Any

PROMPT = "when Mary and John went to the park , John gave a ring to"


def attention(
    model: str = "microworld",
    prompt: str = PROMPT,
    out: Path = Path("attention"),
    seed: int = 0,
) -> None:
    """Show where each head looks: small maps of all heads, one of them large, with the tokens on both axes.

    Heads are labelled by how much they look at the token before, at earlier places with the same token, and at the
    places after those (induction), on random words said twice, or random tokens where the tokenizer lacks the words.

    Args:
        model: A shipped model (microworld), a local Hugging Face folder, or a hub id.
        prompt: The text.
        out: Folder for the page.
        seed: Seed of the random words.
    """
    from interp_jax import models, report
    from interp_jax.cli import output, subject

    output.check_writable(out)
    loaded, tokenizer = subject.open_model(model)
    tokens, _, _ = models.tokenize(tokenizer, prompt)
    scores = _scores(loaded, tokenizer, seed)
    for name, score in scores.items():
        layer, head = divmod(int(score.argmax()), score.shape[1])
        print(f"{name:16} most in head {layer}.{head}: {score.max():.2f}")
    words = tokenizer.to_str_tokens(tokens[0])
    page = report.attention_page(
        _pattern(loaded, tokens)[:, 0], words, title=f"{Path(model).name} · attention", scores=scores
    )
    output.write(out / "index.html", page)
    print(f"the page: {out / 'index.html'}")


def _pattern(model: Any, tokens: Any, mask: Any = None) -> Any:
    """The attention patterns of a run, float `[layer batch head query key]`."""
    import interp_jax as ij
    from interp_jax import models

    read = ij.capture(models.forward, "blocks.attn.pattern", output=False)
    return read(model, tokens, attention_mask=mask)["blocks.attn.pattern"]


def _scores(model: Any, tokenizer: Any, seed: int) -> dict[str, Any]:
    """How far each head is of a kind: name of the kind -> `[layer head]`, from 0 to 1."""
    from interp_jax import heads

    tokens, mask = _said_twice(model, tokenizer, seed)
    pattern = _pattern(model, tokens, mask)
    kinds = {
        "induction": heads.induction_scores,
        "previous token": heads.previous_token_scores,
        "duplicate token": heads.duplicate_token_scores,
    }
    return {name: score(pattern, tokens, mask) for name, score in kinds.items()}


def _said_twice(model: Any, tokenizer: Any, seed: int, n: int = 32, length: int = 24) -> tuple[Any, Any]:
    """Tokens and mask `[batch position]` of n sequences, each of words in random order, said twice.

    Where a word is not one token of the tokenizer, they are `length` random tokens, said twice.
    """
    import jax
    import jax.numpy as jnp

    from interp_jax import data

    key = jax.random.key(seed)
    try:
        task = data.tasks.repeated(key, tokenizer, n=n)
    except ValueError:
        prefix = jnp.tile(tokenizer.to_tokens(""), (n, 1))  # what the tokenizer puts before a text
        length = min(length, (model.config.n_ctx - prefix.shape[1]) // 2)
        if length < 2:
            raise ValueError(
                f"attention: a context of {model.config.n_ctx} tokens is too short to say two tokens twice, by which "
                "heads are scored; give a model of a longer one"
            ) from None
        said = jax.random.randint(key, (n, length), 0, tokenizer.d_vocab, jnp.int32)
        tokens = jnp.concatenate([prefix, said, said], axis=1)
        return tokens, jnp.ones(tokens.shape, bool)
    return task.clean, task.mask
