"""The kinds of dictionaries, one file each; `base` says what a kind is, and what one of your own needs."""

from interp_jax.dictionaries.kinds.archetypal import Archetypal
from interp_jax.dictionaries.kinds.base import Dictionary
from interp_jax.dictionaries.kinds.baselines import ICA, NMF, PCA, NeuronBasis, RandomDirections
from interp_jax.dictionaries.kinds.batchtopk import BatchTopK
from interp_jax.dictionaries.kinds.clt import CrossLayerTranscoder
from interp_jax.dictionaries.kinds.crosscoder import Crosscoder
from interp_jax.dictionaries.kinds.gated import Gated
from interp_jax.dictionaries.kinds.jumprelu import JumpReLU
from interp_jax.dictionaries.kinds.lorsa import Lorsa
from interp_jax.dictionaries.kinds.losses import LossContext, loss_terms
from interp_jax.dictionaries.kinds.matryoshka import Matryoshka
from interp_jax.dictionaries.kinds.panneal import PAnneal
from interp_jax.dictionaries.kinds.relu import ReLU
from interp_jax.dictionaries.kinds.tied import Tied
from interp_jax.dictionaries.kinds.topk import TopK
from interp_jax.dictionaries.kinds.topk_transcoder import TopKTranscoder
from interp_jax.dictionaries.kinds.transcoder import SkipTranscoder, Transcoder

__all__ = [
    "Archetypal",
    "BatchTopK",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Dictionary",
    "Gated",
    "ICA",
    "JumpReLU",
    "Lorsa",
    "LossContext",
    "Matryoshka",
    "NMF",
    "NeuronBasis",
    "PAnneal",
    "PCA",
    "RandomDirections",
    "ReLU",
    "SkipTranscoder",
    "Tied",
    "TopK",
    "TopKTranscoder",
    "Transcoder",
    "loss_terms",
]
