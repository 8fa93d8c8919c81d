"""Dictionaries: sparse features of a model's activations, trained, scored, saved and spliced back in."""

from interp_jax.dictionaries.checkpoint import load, load_metadata, save
from interp_jax.dictionaries.evaluation import Evaluation, evaluate
from interp_jax.dictionaries.splicing import Splice, splice
from interp_jax.dictionaries.topk import TopK
from interp_jax.dictionaries.training import TrainInfo, TrainState, check, train, train_step

__all__ = [
    "Evaluation",
    "Splice",
    "TopK",
    "TrainInfo",
    "TrainState",
    "check",
    "evaluate",
    "load",
    "load_metadata",
    "save",
    "splice",
    "train",
    "train_step",
]
