"""Sparse features of language models, after Cunningham et al. 2023, https://arxiv.org/abs/2309.08600, in three parts.

`python experiments/cunningham.py [--model stories260K] [--text FILE] [--out DIR]`. 1: tied dictionaries of every layer
of a story model beside five baselines with as many active features; `tells`: how well one feature alone tells a
frequent token from the others (mean AUC). 2 and 3, in `cunningham_features.py`: how many features carry an answer,
beside PCA; one feature's tokens, and the logits without it.
"""

from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any
import warnings

from cunningham_features import Indirect, Training, curves, feature, read, show, trained
import jax
import numpy as np
from plotly.colors import qualitative
from plotly.subplots import make_subplots
import runs
from sklearn.exceptions import ConvergenceWarning

from interp_jax import config, models
from interp_jax import dictionaries as ds
from interp_jax.data import corpus
from interp_jax.progress import Progress

DATA = Path(os.environ.get("INTERP_JAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Study:
    n_tokens: int
    n_heldout: int
    ratios: tuple[int, ...]
    sparsity: float
    n_fit: int
    every: int  # from one layer that is looked at to the next
    feature_layer: int  # the first from there on that is
    out: Path
    training: Training
    ioi: Indirect
    model: str = str(DATA / "stories260K")
    text: Path = DATA / "tinystories" / "stories.txt"


def baselines(cfg: Study, x: np.ndarray, d_sae: int, k: int) -> dict[str, list]:
    """One from each seed, where there is a seed and the fit is short."""
    keys, d, mean = [jax.random.key(seed) for seed in cfg.training.seeds], x.shape[-1], x.mean(0)
    some = x[:: max(1, len(x) // cfg.n_fit)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations have to do
        return {
            "neurons": [ds.NeuronBasis.create(keys[0], d, k=k, b_dec=mean)],
            "random": [ds.RandomDirections.create(key, d, d_sae, k=k, b_dec=mean) for key in keys],
            "PCA": [ds.PCA.create(keys[0], d, d, x=x, k=k)],
            "ICA": [ds.ICA.create(key, d, d, x=some, k=k) for key in keys],
            "NMF": [ds.NMF.create(keys[0], d, d, x=some, k=k, n_steps=200, max_iter=200)],
        }


def scores(model: Any, site: str, kinds: dict[str, list], tokens: Any, counts: Any, **told: Any) -> dict[str, dict]:
    """By kind and column a number for each dictionary."""
    x, words, found = read(model, site, tokens, counts), tokens[counts], {}
    fitted, frequent = np.arange(len(x)) % 2 == 0, np.argsort(-np.bincount(words))[:10]
    for name, each in kinds.items():
        numbers = [ds.evaluate(models.forward, site, d, model, tokens, **told).numbers() for d in each]
        found[name] = {column: [one[column] for one in numbers] for column in ("l0", "fvu", "ce_recovered")}
        probes = [[ds.sparse_probe(d.encode(x), words == word, fitted, k=(1,))[1] for word in frequent] for d in each]
        found[name]["tells"] = [float(np.mean([probe.auc for probe in one])) for one in probes]
        cells = [f"{np.mean(values):9.3f} ±{np.std(values):5.3f}" for values in found[name].values()]
        print(f"{site:20}{name:10}" + "".join(cells), flush=True)
    return found


def main(cfg: Study) -> dict[str, Any]:
    for name, path in (("model", Path(cfg.model)), ("text", cfg.text)):
        if path.is_absolute() and not path.exists():  # what is not absolute may be a hub id
            raise SystemExit(f"--{name} {path}: is not there; give another --{name} or set INTERP_JAX_DATA")
    model, tokenizer = models.load(cfg.model, dtype="float32")
    text = corpus.read(tokenizer, cfg.text, n_tokens=cfg.n_tokens, n_positions=64, seed=0)
    train, held = zip(*(np.split(part, [-cfg.n_heldout]) for part in (text.tokens, text.mask)), strict=True)
    told, layers, one = {"mask": text.real[-cfg.n_heldout :], "skip": text.special}, [], {}
    last = f"tied R={cfg.ratios[-1]}"
    print(f"{'mean and spread over seeds':30}{'l0':>9}{'fvu':>16}{'ce_recovered':>16}{'tells':>16}")
    looked_at = range(0, model.config.n_layers, cfg.every)
    with Progress("cunningham", 4 * len(looked_at) + 1) as progress:
        for site, layer in ((f"blocks.{layer}.resid_post", layer) for layer in looked_at):
            progress.begin(f"{site}: activations")
            x = read(model, site, *train)
            progress.begin(f"{site}: tied dictionaries")
            tied = {f"tied R={ratio}": trained(cfg.training, x, ratio, cfg.sparsity) for ratio in cfg.ratios}
            progress.begin(f"{site}: their scores")
            found = scores(model, site, tied, *held, **told)
            progress.begin(f"{site}: baselines")
            k, n_wide = min(x.shape[-1], max(1, round(np.mean(found[last]["l0"])))), cfg.ratios[-1] * x.shape[-1]
            layers.append(found | scores(model, site, baselines(cfg, x, n_wide, k), *held, **told))
            if not one and layer >= cfg.feature_layer:
                one = feature(model, tokenizer, site, tied[last][0], text.tokens, text.mask)
            runs.write(cfg.out / "cunningham.json", cfg, {"layers": layers, "feature": one})
        progress.begin("indirect objects")
        pairs = curves(cfg.ioi, cfg.training)
    for name in layers[0]:
        means = {key: np.mean([layer[name][key] for layer in layers]) for key in ("l0", "fvu", "ce_recovered", "tells")}
        print(f"{'mean over layers':20}{name:10}" + "".join(f"{mean:9.3f}{'':7}" for mean in means.values()))
    show(pairs)
    print(f"\nfeature {one['feature']} of {one['site']}, on {one['density']:.1%} of tokens; share of it by token:")
    print(", ".join(f"{token} {share:.0%}" for token, share in one["tokens"].items()))
    print("logits where it fires, without it:", ", ".join(f"{t} {change:+.2f}" for t, change in one["logits"].items()))

    titles = ["fvu by layer", "cross-entropy recovered", "KL, each pair's features", "KL, shared features"]
    figure = make_subplots(3, 2, subplot_titles=[*titles, "share of the feature by token", "logits without it"])
    lines = {(1, c, n): [r[n][k] for r in layers] for c, k in ((1, "fvu"), (2, "ce_recovered")) for n in layers[0]}
    lines |= {(2, c, n): np.transpose(pairs[n][k]) for c, k in ((1, "own"), (2, "shared")) for n in pairs}
    colors = dict(zip(dict.fromkeys(name for *_, name in lines), qualitative.Dark24, strict=False))
    for (row, column, name), values in lines.items():
        mean, spread = zip(*((np.mean(v), np.std(v)) for v in values), strict=True)
        where = {"name": name, "showlegend": column == 1, "legendgroup": f"{row} {name}", "row": row, "col": column}
        figure.add_scatter(y=mean, error_y={"array": spread}, line_color=colors[name], **where)
    for column, key in enumerate(("tokens", "logits"), start=1):
        figure.add_bar(x=list(one[key]), y=list(one[key].values()), showlegend=False, row=3, col=column)
    figure.update_yaxes(range=[-0.1, 1.3], row=1)  # NMF's few rows may be worse than none at all
    figure.update_layout(height=1400, title="Tied dictionaries and baselines, after Cunningham et al. 2023")
    figure.write_html(cfg.out / "cunningham.html")
    runs.write(cfg.out / "cunningham.json", cfg, numbers := {"layers": layers, "ioi": pairs, "feature": one})
    return numbers


if __name__ == "__main__":
    main(config.load(Study, "configs/cunningham.toml"))
