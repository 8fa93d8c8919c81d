"""Baselines with the face of a dictionary: the neuron basis, random directions, PCA, ICA and NMF."""

from interp_jax.dictionaries.kinds.baselines.directions import RandomDirections
from interp_jax.dictionaries.kinds.baselines.ica import ICA
from interp_jax.dictionaries.kinds.baselines.neurons import NeuronBasis
from interp_jax.dictionaries.kinds.baselines.nmf import NMF
from interp_jax.dictionaries.kinds.baselines.pca import PCA

__all__ = ["ICA", "NMF", "NeuronBasis", "PCA", "RandomDirections"]
