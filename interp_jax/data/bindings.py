"""Contexts of entities and their attributes, all of one length, and with words exchanged: for tests of binding.

    Context: Alice lives in Rome. Bob lives in Cairo. Question: Alice lives in

Each entity and each attribute is one token, so that the same columns hold them in every context of a batch.
Reference: Feng & Steinhardt (2023), "How do Language Models Bind Entities in Context?",
https://arxiv.org/abs/2310.17191.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import random
import string
from typing import Any

import jax
import numpy as np

from interp_jax.data import lexicon
from interp_jax.data.prompts import check_tokenizer
from interp_jax.data.worlds.context import CITIES, HE, NOUNS, SHE


@dataclass(frozen=True)
class Contexts:
    """Contexts with one pair of entity and attribute in each slot, and a question about one of the entities.

    tokens: int32 [batch position]; the answer follows the last one.
    entities, attributes: int32 [batch slot], their tokens; the last column is a pair that the context does not have.
    columns: "entity", "attribute" -> int32 [slot], where they stand.
    clauses: int32 [slot 2], where each pair's clause begins and where the next one does.
    asked: int32 [mention], the columns of the entity that is asked for.
    slot: which of the pairs that is.
    """

    tokens: jax.Array
    entities: jax.Array
    attributes: jax.Array
    columns: dict[str, jax.Array]
    clauses: jax.Array
    asked: jax.Array
    slot: int

    @property
    def n_pairs(self) -> int:
        """How many pairs a context has."""
        return len(self.clauses)

    def answers(self, slot: int | None = None) -> jax.Array:
        """The attribute of a slot, by default of the one that is asked for, int32 [batch]."""
        return self.attributes[:, self.slot if slot is None else slot]

    def asking(self, slot: int) -> jax.Array:
        """The contexts with a question about another slot's entity, int32 [batch position]; -1 is the spare one."""
        return self.tokens.at[:, self.asked].set(self.entities[:, slot, None])

    def crossed(self) -> jax.Array:
        """The asked pair beside the spare one, int32 [2 2 2 batch position].

        By the entity in the asked slot (its own or the spare one), the attribute in it (its own or the spare one), and
        the entity that is asked for.
        """
        e, a = (self.columns[kind][self.slot] for kind in ("entity", "attribute"))

        def one(entity: int, attribute: int, asked: int) -> jax.Array:
            tokens = self.asking((self.slot, -1)[asked])
            tokens = tokens.at[:, e].set(self.entities[:, (self.slot, -1)[entity]])
            return tokens.at[:, a].set(self.attributes[:, (self.slot, -1)[attribute]])

        every = jax.numpy.stack([one(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        return every.reshape(2, 2, 2, *self.tokens.shape)

    def options(self) -> jax.Array:
        """The asked pair's attribute, the spare one, then those of the other slots: int32 [batch option]."""
        others = [k for k in range(self.n_pairs) if k != self.slot]
        return self.attributes[:, jax.numpy.array([self.slot, self.n_pairs, *others])]

    def mask(self, place: str) -> jax.Array:
        """Tokens by what they are, bool [position]. Several together: `mask(a) | mask(b)`.

        place: the asked pair's "entity", its "attribute", the "rest" of its clause, or its whole "clause"; what is
        "later" than that and no question; or the "context", which is all before the question. Raises ValueError for
        another one.
        """
        columns = {kind: {int(at[self.slot])} for kind, at in self.columns.items()}
        clause = set(range(*map(int, self.clauses[self.slot])))
        places = columns | {"rest": clause.difference(*columns.values()), "clause": clause}
        places["context"] = set(range(int(self.clauses[-1, 1])))
        places["later"] = places["context"] - set(range(max(clause) + 1))
        if place not in places:
            raise ValueError(f"Contexts.mask: no place {place!r}; there are {', '.join(places)}")
        return jax.numpy.asarray(np.isin(np.arange(self.tokens.shape[1]), sorted(places[place])))


def contexts(
    key: jax.Array,
    tokenizer: Any,
    n: int = 64,
    *,
    words: Mapping[str, Sequence[str]],
    clause: str,
    question: str,
    n_pairs: int = 2,
    slot: int = 0,
    before: str = "",
    between: str = " ",
    after: str = "",
) -> Contexts:
    """n contexts whose words are drawn anew for each.

    Args:
      key: a jax PRNG key.
      tokenizer: of the model.
      n: number of contexts.
      words: {"entity": ..., "attribute": ..., ...}, from which each {field} of the clause is drawn without repetition.
      clause: of a pair, with the fields in braces, such as "{entity} lives in {attribute}.".
      question: what stands after the last clause, with {entity}, once or more often.
      n_pairs: pairs in a context.
      slot: which of them is asked for.
      before, between, after: what stands before the clauses, between them, and after the last one.

    Raises:
      ValueError: a field without words, or with too few; a word that is not one token of this tokenizer where it
        stands, or contexts of different lengths; a slot that is not there.

    Example:
      >>> from interp_jax import models
      >>> _, tokenizer = models.load("microworld-context")
      >>> some = contexts(jax.random.key(0), tokenizer, n=3, words={"entity": HE, "attribute": CITIES},
      ...                 clause="{entity} lives in {attribute}", question=" {entity} lives in",
      ...                 between=" , ", after=" .")
      >>> some.tokens.shape, some.columns["entity"].tolist(), some.clauses.tolist(), some.asked.tolist()
      ((3, 14), [1, 6], [[1, 6], [6, 11]], [11])
    """
    check_tokenizer(tokenizer)
    fields = {name for text in (clause, question) for _, name, _, _ in string.Formatter().parse(text) if name}
    if lacking := {"entity", "attribute"} - set(words) or fields - set(words):
        raise ValueError(f"contexts: no words for {', '.join(sorted(lacking))}")
    if n < 1 or not 0 <= slot < n_pairs:
        raise ValueError(f"contexts: n={n} and slot={slot} of n_pairs={n_pairs}: at least one, of a pair that is there")
    if few := [name for name in sorted(fields) if len(set(words[name])) <= n_pairs]:
        raise ValueError(
            f"contexts: {n_pairs} pairs and a spare one want {n_pairs + 1} words each, for {', '.join(few)}"
        )
    rng = random.Random(int(jax.random.bits(key)))
    rows = []
    for _ in range(n):
        drawn = {name: rng.sample(sorted(set(words[name])), n_pairs + 1) for name in sorted(fields)}
        pairs = [{name: drawn[name][k] for name in drawn} for k in range(n_pairs + 1)]
        swapped = [pairs[-1] if k == slot else pairs[k] for k in range(n_pairs)]
        rows += [
            _encode(tokenizer, told, (clause, question), slot, (before, between, after))
            for told in (pairs[:-1], swapped)
        ]
    if any(len(ids) != len(rows[0][0]) or places != rows[0][1] for ids, places in rows):
        raise ValueError(
            "contexts: contexts of different lengths: some words are more tokens than others; choose others"
        )
    tokens, places = np.array([ids for ids, _ in rows], np.int32), rows[0][1]
    own, other = tokens[0::2], tokens[1::2]
    columns = {kind: np.array(places[kind], np.int32) for kind in ("entity", "attribute")}
    drawn = {kind: np.concatenate([own[:, at], other[:, at[slot, None]]], axis=1) for kind, at in columns.items()}
    starts = [*places["clause"], places["end"][0]]
    return Contexts(
        tokens=jax.numpy.asarray(own),
        entities=jax.numpy.asarray(drawn["entity"]),
        attributes=jax.numpy.asarray(drawn["attribute"]),
        columns={kind: jax.numpy.asarray(at) for kind, at in columns.items()},
        clauses=jax.numpy.asarray(np.array(list(zip(starts, starts[1:], strict=False)), np.int32)),
        asked=jax.numpy.asarray(np.array(places["asked"], np.int32)),
        slot=slot,
    )


def owners(
    key: jax.Array, tokenizer: Any, n: int = 64, *, n_pairs: int = 3, slot: int = 0, wording: int = 0, **other: Any
) -> Contexts:
    """People and what they have, in the words of `microworld-context`: `Anna has the key and lives in Rome , ...`.

    Arguments and errors as in `contexts`; wording: 0 for sentences, 1 for lists of words.
    """
    words = {"entity": HE + SHE, "attribute": NOUNS, "city": CITIES}
    texts = {
        "clause": ("{entity} has the {attribute} and lives in {city}", "{entity} {attribute} {city}")[wording],
        "question": (" {entity} has the", " thing {entity}")[wording],
        "between": " , ",
        "after": " .",
    }
    return contexts(key, tokenizer, n, words=words, n_pairs=n_pairs, slot=slot, **texts | other)


def boxes(key: jax.Array, tokenizer: Any, n: int = 64, *, n_pairs: int = 3, slot: int = 0, **other: Any) -> Contexts:
    """Boxes and what is in them, in the words of `microworld`: `the keys are in box A , ... . box A contains`.

    The attribute stands before its entity. Arguments and errors as in `contexts`.
    """
    words = {"entity": lexicon.LETTERS, "attribute": lexicon.GOODS}
    texts = {"clause": "the {attribute} are in box {entity}", "question": " box {entity} contains"}
    texts |= {"between": " , ", "after": " ."}
    return contexts(key, tokenizer, n, words=words, n_pairs=n_pairs, slot=slot, **texts | other)


def _encode(
    tokenizer: Any,
    pairs: Sequence[Mapping[str, str]],
    templates: tuple[str, str],
    slot: int,
    around: tuple[str, str, str],
) -> tuple[list[int], dict[str, list[int]]]:
    """A context's ids, and the columns of its entities, attributes and clauses, of their end and of the asked one."""
    (clause, question), (text, between, after) = templates, around
    spans: list[Any] = []  # (what it is, where it begins, where it ends)
    for k, pair in enumerate(pairs):
        spans.append(("clause", len(text), None))
        text = _append(text, clause, pair, spans, ("entity", "attribute"))
        text += between if k + 1 < len(pairs) else after
    spans.append(("end", len(text), None))
    text = _append(text, question, pairs[slot], spans, ("entity",), "asked")
    ids, offsets = tokenizer.encode(text), tokenizer.offsets(text)
    if tokenizer.unk_id in ids[len(tokenizer.encode("")) :]:
        raise ValueError(f"contexts: {text!r} has words that this tokenizer does not know")
    places: dict[str, list[int]] = {}
    for kind, begin, end in spans:
        reaching = np.flatnonzero((offsets[:, 1] > begin) & (offsets[:, 1] > offsets[:, 0]))
        if not len(reaching):
            raise ValueError("contexts: the question has no text")
        column = int(reaching[0])
        if end is not None and (offsets[column, 1] != end or offsets[column, 0] < begin - 1):
            pieces = tokenizer.to_str_tokens([ids[i] for i in reaching if offsets[i, 0] < end])
            raise ValueError(
                f"contexts: {text[begin:end]!r} is not one token of this tokenizer where it stands, but {pieces}; "
                "choose another word, or begin with a text before="
            )
        places.setdefault(kind, []).append(column)
    return ids, places


def _append(
    text: str, template: str, pair: Mapping[str, str], spans: list[Any], kinds: Sequence[str], name: str = ""
) -> str:
    for literal, field, _, _ in string.Formatter().parse(template):
        text += literal
        if field:
            if field in kinds:
                spans.append((name or field, len(text), len(text) + len(pair[field])))
            text += pair[field]
    return text
