"""Models as a third party would write them: they know nothing of sites."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

LAYERS, PATCHES, D_MODEL, CLASSES = 2, 5, 8, 4


class Mlp(nnx.Module):
    def __init__(self, d_in: int, d_hidden: int, rngs: nnx.Rngs):
        self.fc1 = nnx.Linear(d_in, d_hidden, rngs=rngs)
        self.fc2 = nnx.Linear(d_hidden, d_in, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(nnx.tanh(self.fc1(x)))


class MixerBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.ln1 = nnx.LayerNorm(D_MODEL, rngs=rngs)
        self.ln2 = nnx.LayerNorm(D_MODEL, rngs=rngs)
        self.token_mlp = Mlp(PATCHES, 6, rngs)
        self.mlp = Mlp(D_MODEL, 12, rngs)

    def mix(self, x: jax.Array) -> jax.Array:
        assert isinstance(self.token_mlp, Mlp) and self.token_mlp.fc1.kernel.shape == (PATCHES, 6)
        return x + jnp.swapaxes(self.token_mlp(jnp.swapaxes(self.ln1(x), -1, -2)), -1, -2)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.mix(x)
        return x + self.mlp(self.ln2(x))


class Mixer(nnx.Module):
    """An MLP-mixer: `[*batch patch 12]` to `[*batch class]`."""

    def __init__(self, rngs: nnx.Rngs, n_layers: int = LAYERS):
        self.embed = nnx.Linear(12, D_MODEL, rngs=rngs)
        self.blocks = nnx.List([MixerBlock(rngs) for _ in range(n_layers)])
        self.norm = nnx.LayerNorm(D_MODEL, rngs=rngs)
        self.head = nnx.Linear(D_MODEL, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(-2))


class ScannedMixer(Mixer):
    """The same with one block whose weights have a leading layer axis."""

    def __init__(self, rngs: nnx.Rngs):
        super().__init__(rngs, n_layers=0)
        self.blocks = nnx.split_rngs(splits=LAYERS)(nnx.vmap(MixerBlock))(rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(self.embed(x), self.blocks)
        return self.head(self.norm(x).mean(-2))


def scanned(mixer: Mixer) -> ScannedMixer:
    """A mixer's weights in a `ScannedMixer`."""
    model = filled(ScannedMixer)
    for part in ("embed", "norm", "head"):
        nnx.update(getattr(model, part), nnx.state(getattr(mixer, part)))
    nnx.update(model.blocks, jax.tree.map(lambda *x: jnp.stack(x), *(nnx.state(block) for block in mixer.blocks)))
    return model


def filled(make: Callable[[nnx.Rngs], Any], seed: int = 0) -> Any:
    """A model with random weights, biases and norms too, without the time that its own initialisation takes."""
    rng = np.random.default_rng(seed)
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    return nnx.merge(graph, jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), state))


def by_hand(model: Mixer, x: jax.Array, edits: dict[str, Any]) -> jax.Array:
    """The mixer with `edits[name](value, layer)` written into it."""

    def tap(value: jax.Array, name: str, layer: int | None = None) -> jax.Array:
        return edits[name](value, layer) if name in edits else value

    @jax.jit
    def call(model: Mixer, x: jax.Array) -> jax.Array:
        x = tap(model.embed(x), "embed")
        for layer, block in enumerate(model.blocks):
            x = block.mix(tap(x, "blocks.resid_pre", layer))
            x = tap(x + tap(block.mlp(block.ln2(x)), "blocks.mlp_out", layer), "blocks.resid_post", layer)
        return model.head(model.norm(x).mean(-2))

    return call(model, x)


def images(n: int = 2) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(n, PATCHES, 12)), jnp.float32)


class Switch(nnx.Module):
    """Every second block has a gate; each returns a tuple, and the gate a dict."""

    def __init__(self, rngs: nnx.Rngs):
        make = partial(nnx.Linear, 4, 4, rngs=rngs)
        self.blocks = nnx.List([Pair(make, gated=layer % 2 == 1) for layer in range(4)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x, _ = block(x)
        return x


class Pair(nnx.Module):
    def __init__(self, make: Any, *, gated: bool):
        self.linear = make()
        self.gate = nnx.data(Gate(make) if gated else None)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, int]:
        gate = self.gate(x=x)["on"] if self.gate is not None else jnp.float32(1)
        return x + gate * self.linear(x), 7


class Gate(nnx.Module):
    def __init__(self, make: Any):
        self.linear = make()

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        logits = self.linear(x)
        return {"on": nnx.sigmoid(logits), "logits": logits}


class Tied(nnx.Module):
    """Two modules with one matrix, and one module in two places."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.second = nnx.Linear(4, 4, rngs=rngs)
        self.second.kernel = self.first.kernel
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.norms = nnx.List([self.norm, self.norm])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norms[1](self.second(self.norms[0](nnx.relu(self.first(x)))))


class Noisy(nnx.Module):
    """Dropout and batch statistics."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.dropout(self.norm(self.linear(x)), rngs=rngs)


class Wrapped(nnx.Module):
    """Blocks under nnx's own transforms, which hand every variable back."""

    def __init__(self, rngs: nnx.Rngs):
        self.blocks = nnx.data([Noisy(rngs), Noisy(rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = self.blocks
        return nnx.remat(lambda block, x: block(x))(second, nnx.jit(lambda block, x: block(x))(first, x))
