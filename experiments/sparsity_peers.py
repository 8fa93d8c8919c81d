"""SAELens's own trainer on the activations of `sparsity_sweep.py`, and the scores of both."""

from dataclasses import replace
from typing import Any

import numpy as np

from interp_jax import dictionaries as ds


def scores(features: Any, out: Any, target: Any) -> tuple[float, float]:
    """L0 and FVU."""
    variance = np.sum(np.square(target - target.mean(0)))
    return float((np.asarray(features) != 0).sum() / len(target)), float(np.sum(np.square(out - target)) / variance)


def peer(cfg: Any, name: str, x: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
    """SAELens's own steps at its own defaults, one run for each factor of its weight: `[factor 3]`, as `ours`."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes import gated_sae, jumprelu_sae, standard_sae
    from sae_lens.training.sae_trainer import SAETrainer
    import torch

    cls, made, weight = {
        "JumpReLU": (jumprelu_sae.JumpReLUTrainingSAE, jumprelu_sae.JumpReLUTrainingSAEConfig, "l0_coefficient"),
        "Gated": (gated_sae.GatedTrainingSAE, gated_sae.GatedTrainingSAEConfig, "l1_coefficient"),
        "ReLU april 2024": (standard_sae.StandardTrainingSAE, standard_sae.StandardTrainingSAEConfig, "l1_coefficient"),
    }[name]
    found = []
    for factor in cfg.factors:
        torch.manual_seed(seed)
        settings = made(x.shape[1], cfg.d_sae)
        sae = cls(replace(settings, **{weight: factor * getattr(settings, weight)}))
        start = sae.threshold.detach().clone() if name == "JumpReLU" else None
        schedule = {"lr_end": 3e-5, "lr_decay_steps": cfg.n_steps // 5, "lr_warm_up_steps": cfg.n_steps // 20}
        trainer = SAETrainer(SAETrainerConfig(cfg.n_steps * cfg.batch_size, cfg.batch_size, **schedule), sae, iter([]))
        for batch, _ in zip(ds.shuffled(x, cfg.batch_size, seed=seed), range(cfg.n_steps), strict=False):
            trainer._train_step(sae, torch.tensor(np.asarray(batch)))
        with torch.no_grad():
            features = sae.encode(torch.tensor(held))
            moved = np.nan if start is None else float((sae.threshold - start).abs().mean())
            found.append((*scores(features.numpy(), sae.decode(features).numpy(), held), moved))
    return np.array(found)
