"""SAEBench's core report: its groups and names for what `evaluate` finds, with zero ablation as its ablation.

    kl_div_score = (kl_zero - kl_spliced) / kl_zero,    ce_loss_score = (ce_zero - ce_spliced) / (ce_zero - ce_clean)

Karvonen et al. 2025, https://arxiv.org/abs/2503.09532, `sae_bench/evals/core` of version 0.6.
Caveat: three of its numbers are taken as SAELens has since corrected them: its `mse` is divided by the number of
tokens once more, its `l1` leaves signs in, its `explained_variance` subtracts the wrong mean. And it averages over
batches, here every token weighs the same; it splices in and ablates at padding too, here nowhere; it scores
predictions of padding, here not; its numbers of tokens count padding, here not.
"""

import math
from typing import Any


def core(evaluation: Any) -> dict[str, dict[str, float | int]]:
    """The report, group -> name -> number.

    Args:
      evaluation: from `dictionaries.evaluate`.

    Returns:
      What SAEBench writes as `eval_result_metrics`; NaN where a score is a share of nothing.

    Example:
      >>> import jax, interp_jax as ij
      >>> from interp_jax import dictionaries
      >>> W = jax.random.normal(jax.random.key(0), (10, 8))
      >>> f = lambda W, tokens: ij.site(W[tokens], "resid", axes=("batch", "position", "d_model")) @ W.T
      >>> dictionary = dictionaries.TopK.create(jax.random.key(1), d_in=8, d_sae=32, k=8)
      >>> tokens = jax.random.randint(jax.random.key(2), (4, 6), 0, 10)
      >>> core(dictionaries.evaluate(f, "resid", dictionary, W, tokens))["sparsity"]["l0"]
      8.0
    """
    e = evaluation
    total = float(e.density.sum())
    misc = {"frac_alive": 1.0 - e.dead}
    for percent in (1, 10):
        often = e.density > percent / 100
        misc[f"freq_over_{percent}_percent"] = float(often.mean())
        misc[f"normalized_freq_over_{percent}_percent"] = float(e.density[often].sum()) / total if total else 0.0
    return {
        "model_behavior_preservation": {
            "kl_div_score": ratio(e.kl_zero_ablated - e.kl_spliced, e.kl_zero_ablated),
            "kl_div_with_ablation": e.kl_zero_ablated,
            "kl_div_with_sae": e.kl_spliced,
        },
        "model_performance_preservation": {
            "ce_loss_score": e.ce_recovered_zero,
            "ce_loss_with_ablation": e.ce_zero_ablated,
            "ce_loss_with_sae": e.ce_spliced,
            "ce_loss_without_sae": e.ce_clean,
        },
        "reconstruction_quality": {
            "explained_variance": e.explained_variance,
            "explained_variance_legacy": e.explained_variance_legacy,
            "mse": e.mse,
            "cossim": e.cosine,
        },
        "shrinkage": {
            "l2_norm_in": e.l2_norm_in,
            "l2_norm_out": e.l2_norm_out,
            "l2_ratio": e.l2_ratio,
            "relative_reconstruction_bias": e.relative_reconstruction_bias,
        },
        "sparsity": {"l0": e.l0, "l1": e.l1},
        "token_stats": {
            "total_tokens_eval_reconstruction": e.n_tokens,
            "total_tokens_eval_sparsity_variance": e.n_tokens,
        },
        "misc_metrics": misc
        | {
            "average_max_encoder_cosine_sim": e.max_cosine_encoder,
            "average_max_decoder_cosine_sim": e.max_cosine_decoder,
        },
    }


def ratio(part: float, whole: float) -> float:
    """`part / whole`, NaN where the whole is nothing."""
    return part / whole if whole else math.nan
