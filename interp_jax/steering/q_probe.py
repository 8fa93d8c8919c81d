"""Q-probes: a linear probe of a model's embedding chooses among the completions that the model samples.

    q(x, a) = w . phi(x, a) + b
    choose a_i of k samples of p0(. | x) with probability softmax_i(q(x, a_i) / beta)

    reward objective:  mean (q - r)^2
    policy objective:  - mean over prompts of sum_i softmax_i(q / beta) r_i

Li et al. 2024, "Q-Probe: a lightweight approach to reward maximization for language models", arXiv:2402.14688. As k
grows the policy becomes p0 exp(q / beta) / Z, which maximises E[q] - beta KL(. || p0), with the maximum beta log E_p0
exp(q / beta). Caveat: no probe chooses what is not among the samples; the best of k, by the true reward, bounds it.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
import jax.core
import jax.numpy as jnp
from jaxtyping import Array as Typed
from jaxtyping import ArrayLike, Float, Key
import optax

from interp_jax.core import transform
from interp_jax.runs import check_counts

Embeddings = Float[ArrayLike, "*prompt k d"]
Rewards = Float[Typed, "*prompt k"]


class _Options(NamedTuple):
    objective: str
    n_steps: int
    batch_size: int


@partial(jax.tree_util.register_dataclass, data_fields=["w", "b"], meta_fields=[])
@dataclass(frozen=True)
class QProbe:
    """A linear value of completions. It is a pytree.

    Attributes:
      w: float32 `[d]`.
      b: float32 `[]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from interp_jax import steering
      >>> phi = jax.random.normal(jax.random.key(0), (64, 4, 8))
      >>> probe = steering.QProbe.train(jax.random.key(1), phi, phi[..., 0], objective="reward")
      >>> weights = probe.choose(phi, beta=0.1)
      >>> bool((weights * phi[..., 0]).sum(-1).mean() > phi[..., 0].mean() + 0.5)
      True
    """

    w: Any
    b: Any

    def __call__(self, phi: Embeddings) -> Rewards:
        """The values of completions, float32."""
        return jnp.asarray(phi, jnp.float32) @ self.w + self.b

    def choose(self, phi: Embeddings, beta: Any) -> Rewards:
        """With which probability each of the k completions of a prompt is chosen.

        Args:
          phi: `[*prompt k d]`, embeddings of a prompt with each of its completions.
          beta: above 0, a number that may be traced; toward 0 the best is chosen.

        Raises:
          ValueError: a beta that is known and not above 0.
        """
        return reweighted(self(phi), beta)

    @classmethod
    def train(
        cls,
        key: Key[Typed, ""],
        phi: Embeddings,
        rewards: Any,
        *,
        objective: str = "reward",
        beta: float = 0.1,
        n_steps: int = 500,
        batch_size: int = 64,
        weight_decay: float = 1e-2,
        optimizer: optax.GradientTransformation | None = None,
    ) -> "QProbe":
        """A probe trained on completions whose rewards are known, all steps in one program.

        Args:
          key: for the batches.
          phi: `[prompt k d]`.
          rewards: `[prompt k]`.
          objective: "reward", which predicts the reward, or "policy", which raises the reward of what is chosen.
          beta: of the policy objective.
          n_steps, batch_size: steps, and prompts of each.
          weight_decay: AdamW's.
          optimizer: any of optax's; by default AdamW at 1e-2 over embeddings of unit deviation. They are scaled to it
            while training, and what is given takes them as they are.

        Raises:
          ValueError: an unknown objective, a beta not above 0, rewards of another shape, or no prompt.
        """
        phi, rewards = jnp.asarray(phi, jnp.float32), jnp.asarray(rewards, jnp.float32)
        if objective not in _LOSSES or phi.ndim != 3 or rewards.shape != phi.shape[:-1] or not phi.size:
            raise ValueError(
                f"QProbe.train: objective={objective!r}, phi {list(phi.shape)}, rewards {list(rewards.shape)}: give "
                "'reward' or 'policy', [prompt k d] and [prompt k]"
            )
        check_counts(n_steps=n_steps, batch_size=batch_size)
        _check_beta(beta)
        mean, deviation = phi.mean((0, 1)), phi.std((0, 1)) + 1e-6
        update = optimizer or optax.adamw(1e-2, weight_decay=weight_decay)
        run = transform(_trained, _Options(objective, n_steps, min(batch_size, len(phi))), (update, jnp.float32(beta)))
        probe = run(key, (phi - mean) / deviation, rewards)
        w = probe.w / deviation
        return cls(w, probe.b - w @ mean)


def reweighted(q: Rewards, beta: Any) -> Rewards:
    """softmax(q / beta) over the last axis. Raises ValueError where beta is known and not above 0."""
    _check_beta(beta)
    return jax.nn.softmax(jnp.asarray(q, jnp.float32) / beta, axis=-1)


def kl_from_samples(weights: Rewards) -> Float[Typed, "*prompt"]:
    """KL of a choice among k samples from choosing any of them alike, in nats: sum w log(k w), at most log k."""
    return jnp.log(weights.shape[-1]) + jax.scipy.special.xlogy(weights, weights).sum(-1)


def reward_loss(probe: QProbe, phi: Array, rewards: Array, beta: Any) -> Array:
    """Mean squared error of the values; `beta` is not used."""
    return jnp.square(probe(phi) - rewards).mean()


def policy_loss(probe: QProbe, phi: Array, rewards: Array, beta: Any) -> Array:
    """The negative of the mean reward of what is chosen."""
    return -(reweighted(probe(phi), beta) * rewards).sum(-1).mean()


_LOSSES = {"reward": reward_loss, "policy": policy_loss}


def _check_beta(beta: Any) -> None:
    if not isinstance(beta, jax.core.Tracer) and not float(beta) > 0:
        raise ValueError(f"QProbe: beta={beta}: it must be above 0; the smaller, the more surely the best is chosen")


def _trained(options: _Options, arrays: Any, key: Any, phi: Array, rewards: Array) -> QProbe:
    update, beta = arrays

    def step(carry: Any, key: Any) -> Any:
        probe, state = carry
        rows = jax.random.choice(key, len(phi), (options.batch_size,), replace=False)
        gradient = jax.grad(_LOSSES[options.objective])(probe, phi[rows], rewards[rows], beta)
        with jax.numpy_dtype_promotion("standard"):  # optax is not strict about dtypes
            change, state = update.update(gradient, state, probe)
            return (optax.apply_updates(probe, change), state), None

    new = QProbe(jnp.zeros(phi.shape[-1]), jnp.zeros(()))
    (probe, _), _ = jax.lax.scan(step, (new, update.init(new)), jax.random.split(key, options.n_steps))
    return probe
