"""`interp-jax dashboard`: what is asked of the model beside plain recomputations, and one line for what is wrong."""

import json
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import interp_jax as ij
from interp_jax import dictionaries, explain, models
from interp_jax.cli import live, main
from interp_jax.interventions import at, replace

WORDS = "the cat dog sat ran on mat and saw a big red ball then went home with mom who said yes .".split()
SITE, TEXT = "blocks.1.resid_post", "the cat saw a big red dog and"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model of two layers with its words, a dictionary of it, one of another width, and a text."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models as kinds
    from tokenizers import pre_tokenizers

    backend = Backend(kinds.WordLevel({"<s>": 0, "<unk>": 1} | {w: i + 2 for i, w in enumerate(WORDS)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(["<s>"])
    tokenizer = models.Tokenizer(backend, {"bos_token": "<s>", "unk_token": "<unk>"})
    config = models.Config(n_layers=2, n_heads=2, d_model=16, d_mlp=32, d_vocab=len(WORDS) + 2, n_ctx=32)
    where = tmp_path_factory.mktemp("tiny")
    models.save(where / "model", models.Decoder.create(jax.random.key(0), config), tokenizer)
    rng = random.Random(0)
    (where / "text.txt").write_text("\n".join(" ".join(rng.choices(WORDS, k=14)) for _ in range(120)))
    for name, d_in in (("dictionary", 16), ("wide", 24)):
        made = dictionaries.TopK.create(jax.random.key(1), d_in, 40, 4)
        dictionaries.save(where / name, made, model=str(where / "model"), site=SITE)
    return where


@pytest.fixture(scope="module")
def subject(folder):
    model, tokenizer = models.load(folder / "model", dtype="float32")
    return model, tokenizer, dictionaries.load(folder / "dictionary")


@pytest.fixture(scope="module")
def running(subject):
    """What the dashboard asks, of features, of neurons of every layer, and their records on a few tokens."""
    model, tokenizer, dictionary = subject
    tokens = np.random.default_rng(0).integers(2, 20, (4, 12)).astype(np.int32)
    where = {SITE: dictionary, "blocks.mlp.post": None}
    records = explain.record(models.forward, where, batch_size=4)(model, tokens)
    return live.live(model, tokenizer, records, where), records


def run(*words, capsys):
    """Exit code, stdout and stderr of one command."""
    try:
        main([str(word) for word in words])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_where_a_unit_fires_in_a_text(subject, running) -> None:
    model, tokenizer, dictionary = subject
    asked, records = running
    ids = jnp.asarray([tokenizer.encode(TEXT, bos=True)])
    captured = ij.capture(models.forward, [SITE, "blocks.mlp.post"], output=False)(model, ids)
    features = np.asarray(dictionary.encode(captured[SITE]))[0, 1:]
    unit = int(features.sum(0).argmax())
    strings, values = asked.fire(SITE, unit, TEXT)
    assert [string.strip() for string in strings] == TEXT.split()  # without the bos token, which the model has read
    np.testing.assert_allclose(values, features[:, unit], atol=1e-5)
    neurons = np.asarray(captured["blocks.mlp.post"])
    _, values = asked.fire("blocks.mlp.post", 32 + 5, TEXT)
    np.testing.assert_allclose(values, neurons[1, 0, 1:, 5], atol=1e-5)
    assert records["blocks.mlp.post"].shape == (2, 32)


@pytest.mark.long
@pytest.mark.parametrize(("source", "strength"), [(SITE, 3.0), (SITE, 0.0), ("blocks.mlp.post", -2.0)])
def test_what_is_said_while_a_unit_is_held(subject, running, monkeypatch, source: str, strength: float) -> None:
    model, tokenizer, dictionary = subject
    asked, records = running
    monkeypatch.setattr(live, "N_TOKENS", 4)
    unit = int(records[source].maxima.argmax())
    value = jnp.float32(strength * float(records[source].maxima[unit]))
    if source == SITE:
        edits = {SITE: dictionaries.splice(dictionary, edit=at(replace(value), feature=unit))}
    else:
        edits = {f"blocks.{unit // 32}.mlp.post": at(replace(value), axis=-1, index=unit % 32)}

    def plain(edits) -> str:
        ids = tokenizer.encode(TEXT, bos=True)
        n = len(ids)
        for _ in range(4):
            logits = ij.intervene(models.forward, edits)(model, jnp.asarray([ids]))
            ids.append(int(logits[0, -1].argmax()))
        return tokenizer.decode(ids)[len(tokenizer.decode(ids[:n])) :]

    before, after = asked.steer(source, unit, TEXT, strength)
    assert (before, after) == (plain({}), plain(edits))


KINDS = {
    "blocks.0.mlp_in": lambda key: dictionaries.Transcoder.create(key, 16, 24),
    "blocks.1.resid_pre": lambda key: dictionaries.Lorsa.create(key, 16, 24, 4, n_groups=2, d_qk=4),
    "blocks.0.resid_post, blocks.1.resid_post": lambda key: dictionaries.Crosscoder.create(key, 16, 24, n_sites=2),
    "blocks.mlp_in": lambda key: dictionaries.CrossLayerTranscoder.create(key, 16, 24, n_layers=2),
    "blocks.1.attn.z": lambda key: dictionaries.ReLU.create(key, 16, 24),
}


@pytest.mark.long
@pytest.mark.parametrize("source", KINDS)
def test_every_kind_fires_as_it_is_recorded(subject, source: str) -> None:
    model, tokenizer, _ = subject
    dictionary = KINDS[source](jax.random.key(2))
    ids = np.array([tokenizer.encode(TEXT, bos=True)], np.int32)
    records = explain.record(models.forward, {source: dictionary})(model, ids, skip=(0,))
    asked = live.live(model, tokenizer, records, {source: dictionary}, "blocks.0.mlp_out")
    live.check(source, model, dictionary)
    for unit in (0, int(records[source].maxima.argmax()), records[source].n_units - 1):
        _, values = asked.fire(source, unit, TEXT)
        assert max(0.0, *values) == pytest.approx(records[source].maxima[unit], rel=1e-3, abs=1e-5)
    assert asked.steers == ({source} if source in ("blocks.0.mlp_in", "blocks.1.attn.z") else set())


def test_a_text_that_is_too_long(running) -> None:
    asked, _ = running
    for ask in (lambda text: asked.fire(SITE, 0, text), lambda text: asked.steer(SITE, 0, text, 1.0)):
        with pytest.raises(ValueError, match="has 41 tokens, at most 32 are read"):
            ask("cat " * 40)
    with pytest.raises(ValueError, match="fills all 32 tokens"):
        asked.steer(SITE, 0, "cat " * 31, 1.0)


@pytest.mark.long
def test_pages_as_files_from_nothing_but_a_dictionary(folder, tmp_path, capsys) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folder / "dictionary", mine)
    static = ["dashboard", mine, "--static", tmp_path / "pages"]
    code, out, err = run(*static, "--text", folder / "text.txt", "--tokens", "900", capsys=capsys)
    assert code == 0, err
    assert "on 900 tokens of" in out and "the pages:" in out
    assert {path.name for path in (mine / "records").iterdir()} >= {"card.json", "heads.json"}
    rows = json.loads((mine / "records" / "heads.json").read_text())["rows"]
    assert len(rows) == 4 and all(row["writes"] for row in rows)
    assert (tmp_path / "pages" / "index.html").is_file()
    code, out, err = run(*static, capsys=capsys)  # what is there is taken
    assert code == 0 and "recording" not in out, err
    code, _, err = run(*static, "--tokens", "50", capsys=capsys)
    assert code == 2 and "has records" in err
    (mine / "records" / "explanations.jsonl").write_text("{\n")
    code, _, err = run(*static, capsys=capsys)
    (mine / "records" / "explanations.jsonl").unlink()
    assert code == 2 and "line 1 is no explanation" in err and err.count("\n") == 1


@pytest.mark.long
def test_words_that_heads_write(subject) -> None:
    """As one program for each head would say."""
    from interp_jax import heads, weights
    from interp_jax.cli import head_survey

    model, tokenizer, _ = subject
    tokens = np.random.default_rng(0).integers(2, 20, (6, 10)).astype(np.int32)
    real = np.arange(10) < np.array([10, 10, 7, 10, 10, 9])[:, None]
    strings = tokenizer.to_str_tokens(range(tokenizer.d_vocab))
    found = heads.survey(models.forward)(model, [(jnp.asarray(tokens), jnp.asarray(real))])
    written = head_survey._written(model, tokens, real, strings, found)
    folded = weights.fold_norms(models.weights(model))
    places = found.places(1, 1)
    vectors = heads.head_output(models.forward, 1, 1)(
        model,
        jnp.asarray(tokens[places[:, 0]]),
        jnp.asarray(places[:, 1]),
        attention_mask=jnp.asarray(real[places[:, 0]]),
    )
    _, ids = weights.top_tokens_written(folded, vectors, 5)
    expected = {tuple(at): [strings[i] for i in row] for at, row in zip(places.tolist(), np.asarray(ids), strict=True)}
    assert written[1, 1] == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["wide"], "d_in=24"),
        (["dictionary", "--site", "blocks.7.resid_post"], "blocks.7.resid_post"),
        (["dictionary", "--model", "nowhere"], "nowhere"),
        (["nowhere"], "nowhere"),
        (["dictionary", "--records", "model"], "no records"),
        (["dictionary", "--text", "nowhere.txt"], "nowhere.txt"),
        (["dictionary", "--port", "70000"], "port 70000"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(folder, monkeypatch, capsys, words: list[str], told: str) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run("dashboard", *words, *([] if "--port" in words else ["--port", "0"]), capsys=capsys)
    assert code == 2 and err.count("\n") == 1 and told in err, err


def test_a_port_in_use_is_told_before_the_work(folder, capsys) -> None:
    from interp_jax import report

    with report.listening(0) as taken:
        port = taken.getsockname()[1]
        code, _, err = run("dashboard", folder / "nowhere", "--port", port, capsys=capsys)
    assert code == 2 and f"port {port}" in err and "0 for any free one" in err


def test_a_dictionary_that_does_not_say_its_model(folder, tmp_path, capsys) -> None:
    dictionaries.save(tmp_path / "silent", dictionaries.TopK.create(jax.random.key(1), 16, 40, 4))
    code, _, err = run("dashboard", tmp_path / "silent", "--port", 0, capsys=capsys)
    assert code == 2 and "does not say its model; give --model" in err
    (tmp_path / "empty").mkdir()
    words = ["--model", folder / "model", "--site", SITE, "--records", tmp_path / "empty", "--port", 0]
    code, _, err = run("dashboard", tmp_path / "silent", *words, capsys=capsys)
    assert code == 2 and "no records" in err and err.count("\n") == 1
