"""Data: text to tokens, the microworlds with their labels and known structure, tasks of prompts, planted features.

.. include:: README.md
"""

from interp_jax.data import bindings as bindings
from interp_jax.data import card as card
from interp_jax.data import conllu as conllu
from interp_jax.data import conversations as conversations
from interp_jax.data import corpus as corpus
from interp_jax.data import graphs as graphs
from interp_jax.data import masked as masked
from interp_jax.data import microworld as microworld
from interp_jax.data import pairs as pairs
from interp_jax.data import planted as planted
from interp_jax.data import spans as spans
from interp_jax.data import sst2 as sst2
from interp_jax.data import statements as statements
from interp_jax.data import tasks as tasks
from interp_jax.data import truthfulqa as truthfulqa
from interp_jax.data.worlds import WORLDS as WORLDS
