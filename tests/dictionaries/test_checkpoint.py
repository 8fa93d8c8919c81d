"""Saving and loading: the folder alone is enough, and a damaged one gives one clear line."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interp_jax import dictionaries, io


@pytest.fixture
def dictionary():
    return dictionaries.TopK.create(jax.random.key(0), 8, 32, 4, b_dec=jnp.arange(8.0))


def test_round_trip(tmp_path, dictionary):
    dictionaries.save(tmp_path / "deep" / "d", dictionary, site="blocks.1.resid_post", normalisation=2.5)
    again = dictionaries.load(tmp_path / "deep" / "d")
    assert type(again) is type(dictionary)
    assert (again.k, again.k_aux) == (4, 4)
    jax.tree.map(np.testing.assert_array_equal, dictionary, again)
    x = jax.random.normal(jax.random.key(1), (5, 8))
    np.testing.assert_array_equal(again(x), dictionary(x))
    about = dictionaries.load_metadata(tmp_path / "deep" / "d")
    assert about == {"site": "blocks.1.resid_post", "normalisation": 2.5}


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path, dictionary):
    dictionaries.save(tmp_path / "d", dictionary)
    dictionaries.save(tmp_path / "d", dictionary.fold_scale(2.0))
    np.testing.assert_array_equal(dictionaries.load(tmp_path / "d").b_dec, dictionary.b_dec / 2)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_failed_save_keeps_the_old_one(tmp_path, dictionary):
    dictionaries.save(tmp_path / "d", dictionary)
    with pytest.raises(TypeError):
        dictionaries.save(tmp_path / "d", dictionary, site=object())
    jax.tree.map(np.testing.assert_array_equal, dictionary, dictionaries.load(tmp_path / "d"))
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path, dictionary):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another folder"):
        dictionaries.save(tmp_path, dictionary)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_is_not_a_dictionary_is_refused(tmp_path, dictionary):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        dictionaries.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not a checkpoint"):
        dictionaries.load(tmp_path)
    io.orbax.save(tmp_path / "other", {"a": jnp.ones(2)}, {"architecture": "tower"})
    with pytest.raises(ValueError, match="unknown architecture 'tower'; known: "):
        dictionaries.load(tmp_path / "other")
    with pytest.raises(ValueError, match="unknown format 'pickle'"):
        dictionaries.save(tmp_path / "d", dictionary, format="pickle")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_torn_file_is_one_clear_line_or_does_no_harm(tmp_path, dictionary):
    dictionaries.save(tmp_path / "d", dictionary)
    refused = 0
    for file in sorted(p for p in (tmp_path / "d").rglob("*") if p.is_file()):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        try:
            jax.tree.map(np.testing.assert_array_equal, dictionary, dictionaries.load(tmp_path / "d"))
        except ValueError as error:
            refused += 1
            assert "torn or damaged" in str(error)
            assert "\n" not in str(error)
        file.write_bytes(whole)
    assert refused >= 2
    gc.collect()  # what Orbax left unfinished complains here, and not in another test
