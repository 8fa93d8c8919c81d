"""Dictionaries: sparse features of a model's activations, trained, scored, saved and spliced back in."""

from interp_jax.dictionaries.checkpoint import load, load_metadata, save
from interp_jax.dictionaries.topk import TopK
from interp_jax.dictionaries.training import TrainInfo, TrainState, check, train, train_step

__all__ = ["TopK", "TrainInfo", "TrainState", "check", "load", "load_metadata", "save", "train", "train_step"]
