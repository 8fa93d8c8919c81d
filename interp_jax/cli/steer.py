"""`interp-jax steer`: a vector of texts for and against something, and what the model says when it is added."""

from collections.abc import Sequence
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from interp_jax.steering import SteeringVector

EXAMPLES, PROMPTS = 64, 3  # requests of microworld-chat where no texts are given; prompts where none are


def steer(
    positive: tuple[str, ...] = (),
    negative: tuple[str, ...] = (),
    prompts: tuple[str, ...] = (),
    vector: Path | None = None,
    model: str = "microworld-chat",
    site: str = "blocks.resid_post",
    layer: int | None = None,
    strengths: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0),
    form: Literal["add", "match_norm", "keep_norm"] = "add",
    position: Literal["all", "prompt", "generated"] = "all",
    tokens: int = 30,
    chat: bool = False,
    out: Path = Path("steer"),
) -> None:
    """Steer a model by the difference of what it holds at the end of texts for and of texts against something.

    For each strength a line tells how many prompts go on otherwise than without, and the perplexity of what is said to
    the model as it is; then each prompt stands with how it goes on. Without texts, they are requests that
    microworld-chat refuses, and requests that it helps with.

    Args:
        positive: Texts for, or one file of them, a text a line. Each is read at its last token.
        negative: Texts against, likewise.
        prompts: What to go on from; by default the first three texts against.
        vector: A saved vector to steer by, ours, a GGUF control vector or vllm-lens's, rather than one made of texts.
        model: A shipped model (microworld-chat), a local Hugging Face folder or GGUF file, or a hub id.
        site: Where to read and add it.
        layer: The layer, by default that in the middle.
        strengths: What the vector is multiplied by. 0 is the model as it is.
        form: How it is added: as it is, at the norm of what stands there, or keeping that norm.
        position: Where: everywhere, in the prompt, or in what is generated.
        tokens: How many tokens are generated.
        chat: Whether texts and prompts are said by a user, in the model's chat template.
        out: Folder for the vector and the numbers.
    """
    from interp_jax import steering
    from interp_jax.cli import output, subject

    output.check_writable(out)
    sides = [_lines("--positive", positive), _lines("--negative", negative)]
    if vector is not None and any(sides):
        raise ValueError("steer: --vector and texts to make another of; give one or the other")
    if vector is not None and not prompts:
        raise ValueError("steer: no prompt to go on from; give --prompts")
    loaded, tokenizer = subject.open_model(model)
    if vector is not None:
        steered = steering.load(vector, model=model)
    else:
        sides, chat = (sides, chat) if any(sides) else (_requests(model, tokenizer), False)
        steered = _made(loaded, tokenizer, sides, chat, site, model)
    if steered.layers is not None and (layer is not None or vector is None):
        steered = steered.at_layers(loaded.config.n_layers // 2 if layer is None else layer)

    texts = list(prompts) or sides[1][:PROMPTS]
    asked, mask = _read(tokenizer, texts, chat)

    def said(edits: dict[str, Any]) -> tuple[list[str], float]:
        return _said(loaded, tokenizer, asked, mask, tokens, edits)

    before, rows = said({})[0], []
    for strength in strengths:
        edit = steered.edit(strength, form=form, position=None if position == "all" else position)
        after, perplexity = said({steered.site: edit})
        changed = sum(one != other for one, other in zip(before, after, strict=True))
        rows.append({"strength": strength, "changed": changed, "perplexity": perplexity, "texts": after})
    _print(steered, texts, before, rows)
    steering.save(out / "vector", steered)
    about = {"model": model, "site": steered.site, "layers": steered.layers, "how": steered.how, "form": form}
    told = about | {"position": position, "prompts": texts, "before": before, "rows": rows}
    output.write(out / "steer.json", json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {out / 'vector'}, {out / 'steer.json'}")


def _lines(option: str, texts: tuple[str, ...]) -> list[str]:
    """The texts, or the lines of the one file that is named."""
    if len(texts) != 1 or not Path(texts[0]).is_file():
        return list(texts)
    try:
        lines = [line.strip() for line in Path(texts[0]).read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"steer: {option} {texts[0]}: is not UTF-8 text; give a text a line") from None
    return [line for line in lines if line]


def _requests(model: str, tokenizer: Any) -> list[list[str]]:
    """Requests that microworld-chat refuses and that it helps with, as it reads them."""
    import jax
    import numpy as np

    from interp_jax import data

    try:
        task = data.tasks.refusal(jax.random.key(0), tokenizer, EXAMPLES, split="train")
    except ValueError:
        raise ValueError(f"steer: no texts for {model}; give --positive and --negative, or --vector") from None
    rows = zip(np.asarray(task.clean), np.asarray(task.mask), task.attributes["harmful"], strict=True)
    texts = [(harmful == "yes", tokenizer.decode(row[real][1:])) for row, real, harmful in rows]
    return [[text for harmful, text in texts if harmful is wanted] for wanted in (True, False)]


def _read(tokenizer: Any, texts: Sequence[str], chat: bool) -> tuple[Any, Any]:
    """Tokens and mask `[text position]`."""
    from interp_jax import models

    said = [[{"role": "user", "content": text}] for text in texts] if chat else list(texts)
    tokens, mask, _ = models.tokenize(tokenizer, said, chat=True if chat else None)
    return tokens, mask


def _made(model: Any, tokenizer: Any, sides: list[list[str]], chat: bool, site: str, name: str) -> "SteeringVector":
    from interp_jax import models, steering

    for option, side in zip(("--positive", "--negative"), sides, strict=True):
        if not side:
            raise ValueError(f"steer: no {option} texts: a direction needs texts of both sides; give {option}")
    (positive, real), (negative, others) = (_read(tokenizer, side, chat) for side in sides)
    return steering.vectors(models.forward, site, model=name)(model, positive, negative, real, others)


def _said(model: Any, tokenizer: Any, tokens: Any, mask: Any, n: int, edits: dict[str, Any]) -> tuple[list[str], float]:
    """How each prompt goes on, and the perplexity of that to the model without edits."""
    import jax.numpy as jnp
    import numpy as np

    from interp_jax import metrics, models

    stop, n_prompt = tokenizer.eos_id, tokens.shape[1]
    out = models.generate(model, tokens, n, attention_mask=mask, edits=edits, stop=stop)
    new = np.asarray(out)[:, n_prompt:]
    after = np.cumsum(new == stop, axis=1) - (new == stop) > 0  # what stands after the first stop
    scored = np.concatenate([np.zeros((len(new), n_prompt - 1), bool), np.ones((len(new), 1), bool), ~after], axis=1)
    real = jnp.concatenate([mask, jnp.ones(new.shape, bool)], axis=1)
    losses = metrics.cross_entropy(out, jnp.asarray(scored))(models.forward(model, out, attention_mask=real))
    texts = [tokenizer.decode(row[~over & (row != stop)]) for row, over in zip(new, after, strict=True)]
    return texts, float(np.exp(losses.mean()))


def _print(vector: "SteeringVector", prompts: list[str], before: list[str], rows: list[dict[str, Any]]) -> None:
    where = "" if vector.layers is None else f", layer {', '.join(map(str, vector.layers))}"
    print(f"{vector.how}; {vector.site}{where}\n")
    print(f"{'strength':>8}  {'changed':>7}  {'perplexity':>10}")
    for row in rows:
        changed = f"{row['changed']}/{len(prompts)}"
        print(f"{row['strength']:8g}  {changed:>7}  {row['perplexity']:10.2f}")
    for i, prompt in enumerate(prompts):
        print(f"\n{prompt}\n  before  {' '.join(before[i].split())}")
        for row in rows:
            print(f"{row['strength']:8g}  {' '.join(row['texts'][i].split())}")
    print()
