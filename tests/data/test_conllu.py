"""Treebanks: the text that stands in the file itself, spans that hold their words in any tokenizer, errors by line."""

from pathlib import Path

import jax
import numpy as np
import pytest

from interp_jax import models
from interp_jax.data import conllu
from interp_jax.data.spans import by_sentence, labelled

SEE = """# text = I don't see du
1	I	I	PRON	_	_	4	nsubj	_	_
2-3	don't	_	_	_	_	_	_	_	_
2	do	do	AUX	_	_	4	aux	_	_
3	n't	not	PART	_	_	4	advmod	_	_
4	see	see	VERB	_	_	0	root	_	_
4.1	it	it	PRON	_	_	_	_	4:obj	_
5-6	du	_	_	_	_	_	_	_	SpaceAfter=No
5	de	de	ADP	_	_	6	case	_	_
6	le	le	DET	_	_	4	obl:arg	_	_
7	!	!	PUNCT	_	_	4	punct	_	_
"""


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        (tmp_path / "bank.conllu").write_text(text, encoding="utf-8")
        return tmp_path / "bank.conllu"

    return write


@pytest.fixture(scope="module")
def bert() -> models.Tokenizer:
    return models.load("microworld-bert")[1]


def test_a_sentence(written) -> None:
    (sentence,) = conllu.read(written(SEE))
    assert sentence.words == ("I", "do", "n't", "see", "de", "le", "!")
    assert sentence.text == "I don't see de le!"
    assert [sentence.text[start:stop] for start, stop in sentence.characters] == list(sentence.words)
    assert sentence.heads == (3, 3, 3, -1, 5, 3, 3) and sentence.relations[5] == "obl"


def test_the_text_is_that_of_the_file(real_data: Path) -> None:
    for part in ("dev", "test"):
        file = real_data / "ud-ewt" / f"en_ewt-ud-{part}.conllu"
        sentences = conllu.read(file)
        lines = file.read_text(encoding="utf-8").splitlines()
        texts = [line.removeprefix("# text = ").strip() for line in lines if line.startswith("# text = ")]
        assert [one.text for one in sentences] == [text.replace("\xa0", " ") for text in texts]
        plain = [line.split("\t") for line in lines if line.split("\t")[0].isdecimal()]
        assert [tag for one in sentences for tag in one.pos] == [row[3] for row in plain]
        assert [head + 1 for one in sentences for head in one.heads] == [int(row[6]) for row in plain]


def test_spans_hold_their_words(real_data: Path, bert: models.Tokenizer) -> None:
    sentences = conllu.read(real_data / "ud-ewt" / "en_ewt-ud-dev.conllu")[:100]
    batch = conllu.labelled(jax.random.key(0), bert, sentences, kind="relations", n_positions=40)
    kept = [one for one in sentences if len(bert.encode(one.text)) <= 40 and len(one.words) > 1]
    assert len(batch.tokens) == len(kept) and batch.tokens.shape[1] <= 40
    words = [(row, i) for row, one in enumerate(kept) for i, head in enumerate(one.heads) if head >= 0]
    assert len(words) == len(batch.labels)
    for at, (row, i) in enumerate(words):
        one = kept[row]
        for (start, stop), word in ((batch.spans[at], one.words[i]), (batch.others[at], one.words[one.heads[i]])):
            assert np.asarray(batch.mask)[row, start:stop].all()
            read = bert.decode(batch.tokens[row, start:stop]).replace(" ", "")
            assert word.lower() in read or "[UNK]" in read or "'" in word or not word.isascii(), (word, read)
        assert batch.names[batch.labels[at]] == one.relations[i]


def test_pairs_that_are_no_arcs(real_data: Path, bert: models.Tokenizer) -> None:
    sentences = conllu.read(real_data / "ud-ewt" / "en_ewt-ud-dev.conllu")[:50]
    batch = conllu.labelled(jax.random.key(0), bert, sentences, kind="arcs")
    arc = np.asarray(batch.labels) == batch.names.index("arc")
    assert arc.mean() == 0.5
    words, heads = np.asarray(batch.spans), np.asarray(batch.others)
    np.testing.assert_array_equal(words[arc], words[~arc])
    assert (heads[arc] != heads[~arc]).any(1).all()
    assert (np.abs(heads - words)[arc, 0].mean() - np.abs(heads - words)[~arc, 0].mean()) < 1.0


def test_items_by_sentence() -> None:
    batch = labelled(jax.random.key(0), models.load("microworld")[1], n=12, kind="coreference")
    spans, labels = by_sentence(batch)
    for row in range(12):
        here = np.asarray(batch.rows) == row
        n = here.sum()
        np.testing.assert_array_equal(spans[row, :n, 0], np.asarray(batch.spans)[here])
        np.testing.assert_array_equal(spans[row, :n, 1], np.asarray(batch.others)[here])
        np.testing.assert_array_equal(labels[row], [*np.asarray(batch.labels)[here], *[-1] * (labels.shape[1] - n)])
    np.testing.assert_array_equal(by_sentence(batch, 1)[0], spans[:, :, :1])


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("1\tI\tI", "1 I I", "line 2 is no CoNLL-U: '1 I I"),
        ("4\tsee", "9\tsee", "line 6: word 9 stands where word 4 should"),
        ("VERB", "V", "line 6: 'V' is no part of speech of UD, or '0' no head"),
        ("VERB\t_\t_\t0", "VERB\t_\t_\t_", "line 6: 'VERB' is no part of speech of UD, or '_' no head"),
        ("4\tpunct", "14\tpunct", "ends at line 11 has no words, or a head that is none of its others"),
        ("2-3", "3-2", "line 3 is no CoNLL-U"),
        (SEE, "# nothing\n\n", "has no sentence; give a CoNLL-U file"),
        (SEE, "Once upon a time\n", "line 1 is no CoNLL-U: 'Once upon a time'"),
    ],
)
def test_what_is_no_treebank_is_told_by_line(written, old: str, new: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        conllu.read(written(SEE.replace(old, new)))


def test_bad_input(written, bert: models.Tokenizer) -> None:
    sentences = conllu.read(written(SEE))
    with pytest.raises(ValueError, match="kind 'heads'; there are pos, arcs, relations"):
        conllu.labelled(jax.random.key(0), bert, sentences, kind="heads")
    with pytest.raises(ValueError, match="none of 1 sentences has pos and at most 3 tokens"):
        conllu.labelled(jax.random.key(0), bert, sentences, kind="pos", n_positions=3)
    odd = conllu.read(written(SEE.replace("nsubj", "subject")))
    with pytest.raises(ValueError, match="subject is no universal relation"):
        conllu.labelled(jax.random.key(0), bert, odd, kind="relations")
