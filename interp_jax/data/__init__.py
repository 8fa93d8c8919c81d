"""Data: the microworld, a language with labels and known structure, and tasks of clean and corrupted prompts."""

from interp_jax.data import card as card
from interp_jax.data import microworld as microworld
from interp_jax.data import tasks as tasks
