"""Explaining units, features and neurons, in words: where they fire, what that is about, and whether the words hold."""

from interp_jax.explain import thoughts
from interp_jax.explain.chains import Chain
from interp_jax.explain.excerpts import Excerpt
from interp_jax.explain.firings import Firings, firings
from interp_jax.explain.labels import Label, Words, label, telling, words
from interp_jax.explain.language_autoencoder import Reconstructor, as_token, embedding_norm, fve, reconstruct, reward
from interp_jax.explain.removal import Removal, removal

__all__ = ["Excerpt", "Firings", "Label", "Words", "firings", "label", "telling", "words"]
__all__ += ["Reconstructor", "as_token", "embedding_norm", "fve", "reconstruct", "reward"]
__all__ += ["Chain", "Removal", "removal", "thoughts"]
