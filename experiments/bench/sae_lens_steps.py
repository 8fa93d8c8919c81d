"""SAELens's own training steps, for the kinds that it trains too."""

import importlib

import numpy as np

# kind -> settings of ours, SAELens's class and its settings; it trains no transcoder
KINDS = {
    "TopK": ({"k": 32}, "topk_sae.TopK", {"k": 32}),
    "JumpReLU": ({}, "jumprelu_sae.JumpReLU", {}),
    "BatchTopK": ({"k": 32}, "batchtopk_sae.BatchTopK", {"k": 32}),
    "Gated": ({}, "gated_sae.Gated", {}),
    "Matryoshka": (
        {"k": 32, "widths": (512, 1024, 2048, 4096, 8192)},
        "matryoshka_batchtopk_sae.MatryoshkaBatchTopK",
        {"k": 32, "matryoshka_widths": [512, 1024, 2048, 4096, 8192]},
    ),
    "Transcoder": ({}, None, {}),
}


def peer_step(x, d_sae, name, settings):
    """SAELens's own step, on the same activations; its option of sparse activations does not run on a CPU."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    module, kind = name.split(".")
    module = importlib.import_module(f"sae_lens.saes.{module}")
    config = getattr(module, f"{kind}TrainingSAEConfig")(d_in=x.shape[1], d_sae=d_sae, device=device, **settings)
    sae, batch = getattr(module, f"{kind}TrainingSAE")(config), torch.tensor(np.asarray(x), device=device)
    training = SAETrainerConfig(10_000 * len(x), len(x), lr_end=3e-5, device=device)
    trainer = SAETrainer(training, sae, iter([]))
    return lambda: trainer._train_step(sae, batch).loss.item()
