"""What a model knows of countries: the microworld's facts, or capital, language and continent in English."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from interp_jax import data, models

COUNTRIES = """
France Paris French Europe | Germany Berlin German Europe | Italy Rome Italian Europe | Spain Madrid Spanish Europe
Portugal Lisbon Portuguese Europe | Greece Athens Greek Europe | Russia Moscow Russian Europe
Poland Warsaw Polish Europe | Hungary Budapest Hungarian Europe | Sweden Stockholm Swedish Europe
Norway Oslo Norwegian Europe | Finland Helsinki Finnish Europe | Denmark Copenhagen Danish Europe
Austria Vienna German Europe | Ireland Dublin English Europe | England London English Europe
Japan Tokyo Japanese Asia | China Beijing Chinese Asia | Thailand Bangkok Thai Asia | Turkey Ankara Turkish Asia
Vietnam Hanoi Vietnamese Asia | Iran Tehran Persian Asia | Iraq Baghdad Arabic Asia | Korea Seoul Korean Asia
Egypt Cairo Arabic Africa | Kenya Nairobi Swahili Africa | Cuba Havana Spanish America | Peru Lima Spanish America
Mexico Mexico Spanish America | Chile Santiago Spanish America | Brazil Bras Portuguese America
"""
RELATIONS = ("capital", "language", "continent")
PROMPTS = {
    "capital": ("The capital of {} is the city of", "The capital of {} is"),
    "language": ("The main language spoken by people in {} is", "In {}, most people speak"),
    "continent": ("{} is a country on the continent of", "The continent on which {} lies is"),
}


class Prompts(NamedTuple):
    """Prompts padded on the left."""

    tokens: np.ndarray  # [prompt position]
    mask: np.ndarray
    last: np.ndarray  # [prompt], the column of the last token
    position: np.ndarray  # of the entity's last token, in real tokens
    column: np.ndarray  # the same, padding counted


@dataclass(frozen=True)
class Facts:
    """Prompts whose answer the model gets right, one a row."""

    prompts: Prompts
    entities: np.ndarray  # str [prompt]
    relations: np.ndarray
    answers: np.ndarray  # [prompt], tokens
    n_asked: int

    @cached_property
    def table(self) -> dict[tuple[str, str], int]:
        return dict(zip(zip(self.entities, self.relations, strict=True), self.answers.tolist(), strict=True))

    def answer(self, entity: str, relation: str) -> int | None:
        return self.table.get((entity, relation))

    @cached_property
    def held_out(self) -> np.ndarray:
        """bool [prompt]: a third of the entities, which no subspace is fitted to."""
        entities = np.array(sorted(set(self.entities)))
        held = entities[np.random.default_rng(0).permutation(len(entities))[: len(entities) // 3]]
        return np.isin(self.entities, held)

    def told(self) -> str:
        relations = ", ".join(sorted(set(self.relations)))
        return (
            f"{len(self.entities)} of {self.n_asked} prompts answered right, {len(set(self.entities))} entities, "
            f"{relations}"
        )


def known(model: Any, tokenizer: Any, attribute: str) -> Facts:
    """The facts that the model knows of entities of which it knows `attribute`."""
    shipped = "<bos>" in tokenizer.decode([tokenizer.bos_id]) if tokenizer.bos_id is not None else False
    prompts, entities, relations, answers = _microworld(tokenizer) if shipped else _countries(tokenizer)
    parts = [Prompts(*(array[i : i + 32] for array in prompts)) for i in range(0, len(answers), 32)]
    logits = [models.forward(model, part.tokens, attention_mask=part.mask, logits_at=part.last) for part in parts]
    right = np.concatenate([np.asarray(some).argmax(-1) for some in logits]) == answers
    have = set(entities[right & (relations == attribute)])
    keep = right & np.isin(entities, sorted(have)) & np.isin(relations, RELATIONS)
    kept = Prompts(*(array[keep] for array in prompts))
    return Facts(kept, entities[keep], relations[keep], answers[keep], len(answers))


def _microworld(tokenizer: Any) -> tuple[Prompts, np.ndarray, np.ndarray, np.ndarray]:
    task = data.tasks.facts(jax.random.key(0), tokenizer, 2000)
    names = ("subject", "relation", "phrasing")
    _, first = np.unique(np.stack([task.attributes[name] for name in names]), axis=1, return_index=True)
    first = first[np.isin(task.attributes["relation"][first], RELATIONS)]
    places = (task.positions["subject"], task.columns["subject"])
    prompts = Prompts(*(np.asarray(array)[first] for array in (task.clean, task.mask, task.last, *places)))
    entities, relations = (task.attributes[name][first] for name in ("subject", "relation"))
    return prompts, entities, relations, np.asarray(task.answers)[first]


def _countries(tokenizer: Any) -> tuple[Prompts, np.ndarray, np.ndarray, np.ndarray]:
    rows, texts, spans = [], [], []
    for entry in COUNTRIES.replace("\n", "|").split("|"):
        for words in filter(None, [entry.split()]):
            country, *objects = words
            for relation, word in zip(RELATIONS, objects, strict=True):
                for prompt in PROMPTS[relation]:
                    text = prompt.format(country)
                    before = text[: text.index(country) + len(country)]
                    answer = tokenizer.encode(f"{text} {word}", bos=False)[len(tokenizer.encode(text, bos=False))]
                    rows.append((country, relation, answer))
                    texts.append(text)
                    spans.append(len(tokenizer.encode(before)) - 1)
    tokens, mask, last = (np.asarray(a) for a in models.tokenize(tokenizer, texts))
    mask, position = mask.astype(bool), np.array(spans)
    prompts = Prompts(tokens, mask, last, position, position + tokens.shape[1] - mask.sum(1))
    entities, relations, answers = zip(*rows, strict=True)
    return prompts, np.array(entities), np.array(relations), np.array(answers)
