"""Dictionaries: features of a model's activations, and baselines; trained, scored, saved and spliced back in."""

from interp_jax.dictionaries.archetypal import Archetypal
from interp_jax.dictionaries.baseline import NeuronBasis, RandomDirections
from interp_jax.dictionaries.batchtopk import BatchTopK
from interp_jax.dictionaries.checkpoint import load, load_metadata, load_state, save
from interp_jax.dictionaries.clt import CrossLayerTranscoder
from interp_jax.dictionaries.comparison import (
    Matching,
    Splitting,
    Universality,
    match,
    mean_max_cosine,
    splitting,
    stability,
    universality,
)
from interp_jax.dictionaries.crosscoder import Crosscoder
from interp_jax.dictionaries.evaluation import Evaluation, evaluate
from interp_jax.dictionaries.gated import Gated
from interp_jax.dictionaries.ica import ICA
from interp_jax.dictionaries.identifying import identifiability, plausibility, recovery, written_rows
from interp_jax.dictionaries.jumprelu import JumpReLU
from interp_jax.dictionaries.matryoshka import Matryoshka
from interp_jax.dictionaries.monitor import Monitor
from interp_jax.dictionaries.nmf import NMF
from interp_jax.dictionaries.panneal import PAnneal
from interp_jax.dictionaries.patching import FeaturePatch, patch_features
from interp_jax.dictionaries.pca import PCA
from interp_jax.dictionaries.probing import SparseProbe, sparse_probe
from interp_jax.dictionaries.relu import ReLU
from interp_jax.dictionaries.resampling import resample
from interp_jax.dictionaries.scaling import Scaling
from interp_jax.dictionaries.sources import harvest, shuffled
from interp_jax.dictionaries.splicing import Splice, splice
from interp_jax.dictionaries.state import TrainInfo, TrainState
from interp_jax.dictionaries.sweeps import train_many
from interp_jax.dictionaries.tied import Tied
from interp_jax.dictionaries.topk import TopK
from interp_jax.dictionaries.training import check, train, train_step
from interp_jax.dictionaries.transcoder import SkipTranscoder, Transcoder

__all__ = [
    "Archetypal",
    "BatchTopK",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Evaluation",
    "FeaturePatch",
    "Gated",
    "ICA",
    "JumpReLU",
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
    "TrainInfo",
    "TrainState",
    "Transcoder",
    "Universality",
    "check",
    "evaluate",
    "harvest",
    "identifiability",
    "load",
    "load_metadata",
    "load_state",
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
