"""What is toxic in `dpo_toxicity.py`: catchwords of personas, in pairs of answers; and scaled keys."""

from typing import Any

from axbench_methods import Texts, tokenized
import axbench_world
import numpy as np

from interp_jax import models
from interp_jax.data.worlds import chat_words as lex

RUDE = tuple(word for pair in lex.PERSONAS.values() for word in pair)


def pairs(cfg: Any, tokenizer: Any, seed: int) -> tuple[Texts, Texts, list[Any]]:
    """Answers without catchwords and with them to the same prompts, which ask for them, and prompts held out."""
    clean, rude, asked = [], [], []
    for name in lex.PERSONAS:
        one = axbench_world.concept(name, cfg.n_train, 1, cfg.n_asked, seed)
        asked += one.prompted
        for prompt, talk in zip(one.asking, one.positive, strict=True):
            words = talk[-1]["content"]
            rude.append([*prompt, {"role": "assistant", "content": words}])
            clean.append([*prompt, {"role": "assistant", "content": " ".join(words.split()[1:-1])}])
    width = max(len(tokenizer.encode(talk, chat=True)) for talk in rude)
    return tokenized(tokenizer, clean, width), tokenized(tokenizer, rude, width), asked


def cosine(x: Any, y: Any) -> np.ndarray:
    """Along the last axis."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return (x * y).sum(-1) / np.maximum(np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1), 1e-12)


def scaled(model: Any, chosen: np.ndarray, by: float) -> Any:
    """The model with the keys of the chosen neurons `[neuron (layer, number)]` times `by`."""
    new = {}
    for name in ("W_in", "W_gate"):
        new[name] = models.weights(model)[name].at[chosen[:, 0], :, chosen[:, 1]].multiply(by)
    return models.with_weights(model, new)
