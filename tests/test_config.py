"""Settings are read whole, overridden on the command line, and refused in one line when they are wrong."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest

from interp_jax import config


@dataclasses.dataclass(frozen=True)
class Optimizer:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclasses.dataclass(frozen=True)
class Train:
    n_steps: int
    optimizer: Optimizer = Optimizer()
    layers: tuple[int, ...] = ()
    kind: Literal["relu", "gelu"] = "relu"
    out: Path = Path("runs")
    resume: bool = False
    seed: int | None = None


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "train.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_file_then_command_line(toml: Any) -> None:
    path = toml('n_steps = 10\nlayers = [1, 2]\nout = "x"\nseed = 3\n[optimizer]\nlearning_rate = 1\n')
    assert config.load(Train, path, ()) == Train(10, Optimizer(1.0), (1, 2), "relu", Path("x"), False, 3)
    args = "--n-steps 20 --optimizer.betas 0.5 0.6 --layers 7 --kind gelu --resume --seed None".split()
    loaded = config.load(Train, path, args)
    assert loaded == Train(20, Optimizer(1.0, (0.5, 0.6)), (7,), "gelu", Path("x"), True, None)


def test_every_field_is_a_flag(toml: Any, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        config.load(Train, toml("n_steps = 1"), ["--help"])
    text = capsys.readouterr().out
    for flag in "n-steps optimizer.learning-rate optimizer.betas layers kind out resume seed".split():
        assert f"--{flag}" in text


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("n_step = 1", ValueError, "unknown key 'n_step'; did you mean n_steps? Train has n_steps, optimizer"),
        ("zzz = 1", ValueError, "unknown key 'zzz'; Train has n_steps"),
        ("n_steps = 1\n[optimizer]\nlearning_rat = 1", ValueError, "did you mean learning_rate? Optimizer has"),
        ("", ValueError, "missing n_steps, which Train needs"),
        ("n_steps = true", TypeError, "n_steps = True is not int"),
        ("n_steps = 1.5", TypeError, "n_steps = 1.5 is not int"),
        ('n_steps = 1\nlayers = [1, "a"]', TypeError, "layers[1] = 'a' is not int"),
        ('n_steps = 1\nkind = "tanh"', TypeError, "kind = 'tanh' is not typing.Literal['relu', 'gelu']"),
        ("n_steps = 1\nseed = 0.5", TypeError, "seed = 0.5 is not int | None"),
        ("n_steps = 1\noptimizer = 3", TypeError, "optimizer = 3 is not Optimizer"),
        ("n_steps = 1\noptimizer = {betas = [0.1]}", TypeError, "optimizer.betas = [0.1] is not tuple[float, float]"),
        ("n_steps = 1\n[real]\nn_steps = 2", ValueError, "unknown key 'real'"),  # Train has no model
        ("n_steps 1", ValueError, "not a TOML file"),
    ],
)
def test_bad_file(toml: Any, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        config.load(Train, toml(text), ())
    assert message in str(raised.value) and "\n" not in str(raised.value) and "train.toml" in str(raised.value)


def test_bad_flag(toml: Any, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        config.load(Train, toml("n_steps = 1"), ["--n-step", "3"])
    assert "--n-steps" in capsys.readouterr().err


def test_relative_path_is_found_from_the_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # this file's folders come first, so pyproject.toml is the repository's
    with pytest.raises(ValueError, match="unknown key 'build-system'"):
        config.load(Train, "pyproject.toml", ())
    with pytest.raises(FileNotFoundError, match="no such file"):
        config.load(Train, "configs/absent.toml", ())
    Path("mine.toml").write_text("n_steps = 4")
    assert config.load(Train, "mine.toml", ()).n_steps == 4


@dataclasses.dataclass(frozen=True)
class Study:
    model: str
    n: int
    optimizer: Optimizer = Optimizer()


def test_sizes_of_real_models(toml: Any) -> None:
    path = toml(
        'model = "microworld"\nn = 64\n[optimizer]\nlearning_rate = 1\n[real]\nn = 4\noptimizer.betas = [0.5, 0.6]'
    )
    small, real = Study("microworld", 64, Optimizer(1.0)), Study("a.gguf", 4, Optimizer(1.0, (0.5, 0.6)))
    assert config.load(Study, path, ()) == small
    assert config.load(Study, path, ["--model", "microworld-narrow"]) == dataclasses.replace(
        small, model="microworld-narrow"
    )
    assert config.load(Study, path, ["--model", "a.gguf"]) == real
    assert config.load(Study, path, ["--model", "a.gguf", "--n", "9"]) == dataclasses.replace(real, n=9)
    with pytest.raises(ValueError, match=r"toml: real: unknown key 'modl'; did you mean model"):
        config.load(Study, toml('model = "x"\nn = 1\n[real]\nmodl = 3'), ())
