"""`interp-jax quickstart`: from a model and a text to a dictionary, its scores, its page and a steered text."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import time
from typing import TYPE_CHECKING, Any

from interp_jax.cli.sizes import Plan, Sizes, plan, rate
from interp_jax.progress import Progress

if TYPE_CHECKING:
    from interp_jax.cli.steering import Steered
    from interp_jax.cli.subject import Subject

N_FEATURES = 12  # on the page
PAGE_TOKENS = 200_000  # in which the page looks for where its features are active


def quickstart(
    model: str = "microworld",
    text: Path | None = None,
    site: str | None = None,
    out: Path = Path("quickstart"),
    seed: int = 0,
    sizes: Sizes = Sizes(),  # noqa: B008
) -> None:
    """Train a dictionary of features on a model's activations, score it, show it as a page, steer with it.

    Args:
        model: A shipped model (microworld), a local Hugging Face folder, or a hub id.
        text: A UTF-8 text file; by default the microworld's own text.
        site: Where to read, such as blocks.2.resid_post; by default after the last block but one.
        out: Folder for the dictionary, the page and the TensorBoard scalars.
        seed: Seed of the dictionary's start, the order of the tokens, and the microworld's text.
        sizes: Sizes of the run.
    """
    from rich.console import Console

    from interp_jax import dictionaries, io, models, report
    from interp_jax.cli import output, steering, subject
    from interp_jax.data import corpus

    console = Console(highlight=False, soft_wrap=True)
    begun = time.monotonic()
    output.check_writable(out)
    io.orbax.check_free(out / "dictionary")

    looked_at = subject.load(model, site)
    console.print(f"[bold]Sites[/] of {model}")
    print(looked_at.sites)

    planned = plan(sizes, looked_at.model, looked_at.d_in)
    with _stage("reading text"):
        read = corpus.read(looked_at.tokenizer, text, n_tokens=planned.tokens, n_positions=planned.positions, seed=seed)
    with _stage("trying how long a batch takes"):
        speed = rate(looked_at, read.tokens, read.real, planned.per_token)
    minutes = planned.seconds(read.tokens.shape, speed) / 60
    console.print(
        f"\n[bold]About {minutes:.1f} min[/]: {read.mask.sum():,} tokens, {planned.steps:,} training steps "
        "(--sizes.tokens, --sizes.steps)"
    )
    activations = subject.activations(looked_at, read.tokens, read.real)
    source = "the microworld's text" if text is None else str(text)
    console.print(f"\n[bold]Activations[/] of {looked_at.site} on {read.mask.sum():,} tokens of {source}")

    n_held_out = max(1, min(planned.held_out, len(read.tokens) // 10))
    console.print(f"\n[bold]A TopK dictionary[/] of {planned.d_sae:,} features, {planned.k} active for each token")
    counted = activations[:-n_held_out][read.mask[:-n_held_out]]
    dictionary, scale = _train(counted, planned, seed, out / "tensorboard", looked_at.site)

    with _stage("running the model with the dictionary in it"):
        scores = dictionaries.evaluate(
            models.forward,
            looked_at.site,
            dictionary,
            looked_at.model,
            read.tokens[-n_held_out:],
            mask=read.real[-n_held_out:],
            skip=read.special,
        )
    about = {"model": model, "site": looked_at.site, "text": subject.text_said(text)}
    about |= {"normalisation": scale, "scores": scores.numbers()}
    dictionaries.save(out / "dictionary", dictionary, **about)
    console.print(f"\n[bold]Scores[/] on {scores.n_tokens:,} tokens that it was not trained on")
    _print_scores(console, scores)

    with _stage("looking for the features that say the most"):
        features, densities = _features(looked_at, dictionary, activations, read, max(N_FEATURES, planned.steered))
    steered = None
    if features:
        steered = steering.steer(looked_at, dictionary, features[: planned.steered], read.openings)
        _print_steered(console, steered)

    code = _code(looked_at, out, read.openings[0])
    facts = {
        "features": f"{planned.d_sae:,}",
        "active for a token": f"{scores.l0:.1f}",
        "variance explained": f"{scores.explained_variance:.1%}",
        "cross-entropy recovered": f"{scores.ce_recovered:.1%}",
        "dead": f"{(densities == 0).mean():.1%}",
        "trained on": f"{planned.steps * planned.batch:,} tokens",
    }
    html = report.page(
        features[:N_FEATURES],
        title=f"{Path(model).name} · {looked_at.site}",
        facts=facts,
        densities=densities,
        steered=None if steered is None else steered.shown(),
        code=code,
    )
    output.write(out / "index.html", html)
    minutes, seconds = divmod(round(time.monotonic() - begun), 60)
    console.print(f"\n[bold]The page[/] {out / 'index.html'} names {len(features[:N_FEATURES])} features", end="")
    console.print(f"; it all took {minutes} min {seconds:02} s")
    console.print(f"\n[bold]Every feature[/] interp-jax dashboard {out / 'dictionary'}")
    console.print("\n[bold]Load the dictionary again[/]\n")
    print(code)


@contextmanager
def _stage(text: str) -> Iterator[None]:
    """Shows what is under way, where it takes long."""
    with Progress(text, 1) as progress:
        progress.begin()
        yield


def _train(activations: Any, planned: Plan, seed: int, log: Path, site: str) -> tuple[Any, float]:
    """Trains a `TopK` on activations `[token d_in]`.

    Returns:
      The dictionary, for activations as the model has them, and the factor that they were scaled by for training.
    """
    import jax

    from interp_jax import dictionaries

    scaling = dictionaries.Scaling.fit(activations)
    mean = scaling(activations.mean(0))
    dictionary = dictionaries.TopK.create(
        jax.random.key(seed), activations.shape[-1], planned.d_sae, planned.k, b_dec=mean
    )
    batches = dictionaries.shuffled(activations, min(planned.batch, len(activations)), seed=seed, where=site)
    with dictionaries.Monitor(log / time.strftime("%Y-%m-%d-%H%M%S")) as monitor:
        state = dictionaries.train(
            dictionaries.TrainState.create(dictionary, planned.steps),
            batches.map(scaling),
            report=monitor,
            every=max(1, min(20, planned.steps // 10)),
        )
    return scaling.fold(state.dictionary), float(scaling.factor)


def _features(looked_at: "Subject", dictionary: Any, activations: Any, read: Any, n: int) -> tuple[list[Any], Any]:
    """The n features that say the most, each as the page shows it, and the density of every feature `[d_sae]`."""
    from interp_jax import report
    from interp_jax.cli import subject

    rows = slice(0, max(1, PAGE_TOKENS // read.tokens.shape[1]))
    tokens, mask = read.tokens[rows], read.mask[rows]
    found = report.firings(dictionary, activations[rows], mask)
    strings = looked_at.tokenizer.to_str_tokens(range(looked_at.tokenizer.d_vocab))
    chosen = report.telling(found, report.words(tokens, mask, strings), dictionary.W_dec, n=n)
    effects = subject.logit_effects(looked_at, [dictionary.W_dec[feature] for feature, _ in chosen])
    features = [
        report.describe(found, feature, label, tokens, mask, strings, None if effects is None else effects[i])
        for i, (feature, label) in enumerate(chosen)
    ]
    return features, found.densities


def _code(looked_at: "Subject", out: Path, prompt: str) -> str:
    """A script that loads the dictionary again and encodes a prompt."""
    return f"""\
import interp_jax as ij
from interp_jax import dictionaries, models

model, tokenizer = models.load({looked_at.name!r})
dictionary = dictionaries.load({str(out / "dictionary")!r})
tokens, mask, last = models.tokenize(tokenizer, [{prompt!r}])
logits, acts = ij.capture(models.forward, {looked_at.site!r})(model, tokens)
features = dictionary.encode(acts[{looked_at.site!r}])
print(features.shape, (features > 0).sum(-1))"""


def _print_scores(console: Any, scores: Any) -> None:
    rows = {
        "cross-entropy": f"{scores.ce_clean:.3f} clean, {scores.ce_spliced:.3f} with the dictionary, "
        f"{scores.ce_mean_ablated:.3f} with the mean, {scores.ce_zero_ablated:.3f} with zero",
        "recovered": f"{scores.ce_recovered:.1%} of what mean ablation loses",
        "variance": f"{scores.explained_variance:.1%} explained (fvu {scores.fvu:.3f})",
        "features": f"{scores.l0:.1f} active for a token, {scores.dead:.1%} never on these tokens",
    }
    for name, value in rows.items():
        console.print(f"   [dim]{name:14}[/]{value}", markup=True)


def _print_steered(console: Any, steered: "Steered") -> None:
    from rich.text import Text

    console.print(
        f"\n[bold]Steering[/] with feature {steered.feature.index} held at {steered.strength:.2f}: ",
        Text(str(steered.feature.label), style="bold"),
    )
    for name, continuation in (("before", steered.before), ("after", steered.after)):
        on_one_line = " ".join(continuation.split("\n"))
        console.print(Text.assemble((f"   {name:7}", "dim"), (steered.prompt, "dim"), on_one_line))
