"""Dictionaries: features of a model's activations, and baselines; trained, scored, saved and spliced back in.

.. include:: README.md
"""

from interp_jax.dictionaries.activations import harvest, shuffled
from interp_jax.dictionaries.checkpoints import known_kinds, load, load_metadata, load_state, save
from interp_jax.dictionaries.feature_patching import FeaturePatch, patch_features
from interp_jax.dictionaries.kinds import (
    ICA,
    NMF,
    PCA,
    Archetypal,
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
    Dictionary,
    Gated,
    JumpReLU,
    Lorsa,
    LossContext,
    Matryoshka,
    NeuronBasis,
    PAnneal,
    RandomDirections,
    ReLU,
    SkipTranscoder,
    Tied,
    TopK,
    TopKTranscoder,
    Transcoder,
    loss_terms,
)
from interp_jax.dictionaries.layers import load_layers
from interp_jax.dictionaries.scores.comparison import (
    Matching,
    Splitting,
    Universality,
    match,
    mean_max_cosine,
    splitting,
    stability,
    universality,
)
from interp_jax.dictionaries.scores.evaluation import Evaluation, evaluate
from interp_jax.dictionaries.scores.recovery import identifiability, plausibility, recovery, written_rows
from interp_jax.dictionaries.scores.sparse_probing import SparseProbe, sparse_probe
from interp_jax.dictionaries.splicing import Splice, splice
from interp_jax.dictionaries.training.monitor import Monitor
from interp_jax.dictionaries.training.resampling import resample
from interp_jax.dictionaries.training.scaling import Scaling
from interp_jax.dictionaries.training.state import TrainInfo, TrainState
from interp_jax.dictionaries.training.steps import check, train, train_step
from interp_jax.dictionaries.training.sweeps import train_many

__all__ = [
    "Archetypal",
    "BatchTopK",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Dictionary",
    "Evaluation",
    "FeaturePatch",
    "Gated",
    "ICA",
    "JumpReLU",
    "Lorsa",
    "LossContext",
    "Matching",
    "Matryoshka",
    "Monitor",
    "NMF",
    "NeuronBasis",
    "PAnneal",
    "PCA",
    "RandomDirections",
    "ReLU",
    "Scaling",
    "SkipTranscoder",
    "SparseProbe",
    "Splice",
    "Splitting",
    "Tied",
    "TopK",
    "TopKTranscoder",
    "TrainInfo",
    "TrainState",
    "Transcoder",
    "Universality",
    "check",
    "evaluate",
    "harvest",
    "identifiability",
    "known_kinds",
    "load",
    "load_layers",
    "load_metadata",
    "load_state",
    "loss_terms",
    "match",
    "mean_max_cosine",
    "plausibility",
    "recovery",
    "patch_features",
    "resample",
    "save",
    "shuffled",
    "sparse_probe",
    "splice",
    "splitting",
    "stability",
    "train",
    "train_many",
    "train_step",
    "universality",
    "written_rows",
]
