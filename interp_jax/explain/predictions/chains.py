"""Chains of prompts as models that can be looked into in part: each step's answer is a value to read and to replace.

A step asks with what was given and with what earlier steps answered. Reading all answers is what `capture` is to a
model, replacing one is what `intervene` is: a chain that says it rests on an answer, and goes on as before when that is
replaced, does not rest on it. After Wu et al. 2022, "AI chains", https://arxiv.org/abs/2110.01691.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import string


@dataclass(frozen=True)
class Chain:
    """Prompts that are asked one after the other.

    Attributes:
      given: the names of what a chain is about.
      steps: name -> prompt, in the order in which they are asked; `{name}` in a prompt stands for what was given under
        the name, or for the answer of an earlier step. The last step's answer is the chain's.

    Raises:
      ValueError: no steps, a name twice, or a prompt with a name that is neither given nor of an earlier step.

    Example:
      >>> from interp_jax.explain import Chain
      >>> chain = Chain(("person",), {"city": "Where does {person} live?", "land": "Where is {city}?"})
      >>> known = {"Where does Ann live?": "Rome", "Where is Rome?": "Italy", "Where is Oslo?": "Norway"}
      >>> chain(known.__getitem__, {"person": "Ann"})
      {'city': 'Rome', 'land': 'Italy'}
      >>> chain(known.__getitem__, {"person": "Ann"}, {"city": "Oslo"})["land"]
      'Norway'
    """

    given: tuple[str, ...]
    steps: Mapping[str, str]

    def __post_init__(self) -> None:
        known = list(self.given)
        if not self.steps:
            raise ValueError("Chain: no steps; give one prompt at least")
        for name, prompt in self.steps.items():
            if name in known:
                raise ValueError(f"Chain: {name!r} is there twice; give each step a name of its own")
            for _, wanted, _, _ in string.Formatter().parse(prompt):
                if wanted is not None and wanted not in known:
                    raise ValueError(f"Chain: step {name!r} asks with {wanted!r}; before it are {', '.join(known)}")
            known.append(name)

    def __call__(
        self, ask: Callable[[str], str], given: Mapping[str, str], replaced: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The answer of each step.

        Args:
          ask: prompt -> answer.
          given: name -> text.
          replaced: name of a step -> the answer that later steps get in place of its own; that step is not asked.

        Raises:
          ValueError: something is given or replaced that the chain does not have, or not given that it has.
        """
        if set(given) != set(self.given):
            raise ValueError(f"Chain: given {sorted(given)}, wanted {sorted(self.given)}")
        known = replaced or {}
        if unknown := set(known) - set(self.steps):
            raise ValueError(f"Chain: no step {sorted(unknown)} to replace; it has {', '.join(self.steps)}")
        values: dict[str, str] = {}
        for name, prompt in self.steps.items():
            values[name] = known[name] if name in known else ask(prompt.format(**given, **values))
        return values
