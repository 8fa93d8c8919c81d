"""The worlds by name. Each is a vocabulary, a few phenomena and a mixture of them; see `interp_jax.data.world`."""

from interp_jax.data import microworld
from interp_jax.data.world import World
from interp_jax.data.worlds import chat, context, couplets, sums

WORLDS: dict[str, World] = {
    world.name: world for world in (microworld.WORLD, sums.WORLD, couplets.WORLD, context.WORLD, chat.WORLD)
}
