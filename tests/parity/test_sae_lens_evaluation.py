"""The core report against SAELens's own evaluation, on a small model written once in jax and once in torch."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sae_lens")

import interp_jax as ij  # noqa: E402
from interp_jax import dictionaries  # noqa: E402

pytestmark = pytest.mark.parity

D_IN, D_SAE, D_VOCAB, NAME = 12, 40, 17, "blocks.0.hook_resid_post"
EMBED = jax.random.normal(jax.random.key(0), (D_VOCAB, D_IN))
TOKENS = np.asarray(jax.random.randint(jax.random.key(1), (8, 10), 0, D_VOCAB))


def f(embed: jax.Array, tokens: jax.Array) -> jax.Array:
    x = jnp.cumsum(embed[tokens], axis=1)
    return jnp.tanh(ij.site(x, "resid", axes=("batch", "position", "d_model"))) @ embed.T


class Peer:
    """The part of TransformerLens's face that SAELens's evaluation uses."""

    tokenizer = None
    embed = torch.tensor(np.asarray(EMBED))

    def __call__(self, tokens: Any, hook: Any = None, **_: Any) -> tuple[Any, Any]:
        x = self.embed[tokens].cumsum(1)
        logits = torch.tanh(x if hook is None else hook(x, None)) @ self.embed.T
        log_probs = logits[:, :-1].log_softmax(-1)
        return logits, -log_probs.gather(-1, tokens[:, 1:, None])[..., 0]

    def run_with_hooks(self, tokens: Any, *, fwd_hooks: Any, **_: Any) -> tuple[Any, Any]:
        return self(tokens, fwd_hooks[0][1])

    def run_with_cache(self, tokens: Any, **_: Any) -> tuple[None, dict[str, Any]]:
        return None, {NAME: self.embed[tokens].cumsum(1)}


def test_the_core_report() -> None:
    from sae_lens import evals
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.training.activation_scaler import ActivationScaler

    made = dictionaries.ReLU.create(jax.random.key(2), D_IN, D_SAE, form="towards", b_dec=0.1 * jnp.arange(12.0))
    noise = 0.5 * jax.random.normal(jax.random.key(3), (D_SAE,))
    ours = replace(made, b_enc=noise - 3.0, W_dec=0.6 * made.W_dec)
    peer = StandardSAE(StandardSAEConfig(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=True))
    peer.cfg.metadata.hook_name = NAME
    with torch.no_grad():
        for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
            getattr(peer, name).copy_(torch.tensor(np.asarray(getattr(ours, name))))

    store = SimpleNamespace(
        get_batch_tokens=lambda _: torch.tensor(TOKENS, dtype=torch.int64),
        reset_input_dataset=lambda: None,
        store_batch_size_prompts=len(TOKENS),
        context_size=TOKENS.shape[1],
    )
    config = evals.get_eval_everything_config(len(TOKENS), n_eval_reconstruction_batches=1)
    theirs, features = evals.run_evals(
        peer,  # pyright: ignore[reportArgumentType]
        store,  # pyright: ignore[reportArgumentType]
        Peer(),  # pyright: ignore[reportArgumentType]
        ActivationScaler(),
        config,
        exclude_special_tokens=False,
    )

    scores = dictionaries.evaluate(f, "resid", ours, EMBED, TOKENS)
    report = scores.saebench()
    del report["misc_metrics"]  # SAEBench's own
    assert report.keys() == theirs.keys()
    for group, numbers in theirs.items():
        assert report[group] == pytest.approx(numbers, rel=1e-4), group
    np.testing.assert_allclose(scores.density, features["feature_density"], rtol=1e-5)
