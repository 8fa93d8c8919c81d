"""Every activation that TransformerLens caches for GPT-2 equals our site of that name."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformer_lens = pytest.importorskip("transformer_lens")

import interp_jax as ij  # noqa: E402
from interp_jax import models  # noqa: E402
from interp_jax.interventions import at, scale  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {"n_layers": 3, "n_heads": 4, "d_model": 32, "d_head": 8, "d_mlp": 128, "d_vocab": 61, "n_ctx": 20}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, models.Decoder]:
    """TransformerLens's model, its weights unprocessed, and ours."""
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    torch.manual_seed(0)
    config = transformers.GPT2Config(n_layer=3, n_head=4, n_embd=32, vocab_size=61, n_positions=20)
    peer = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    folder = tmp_path_factory.mktemp("gpt2")
    peer.save_pretrained(folder)
    lens_config = transformer_lens.HookedTransformerConfig(**SIZES, act_fn="gelu_new", normalization_type="LN")
    lens = transformer_lens.HookedTransformer(lens_config)
    lens.load_state_dict(convert_gpt2_weights(peer, lens_config), strict=False)
    return lens.eval(), models.load(folder)[0]


def use(lens: Any, **options: bool) -> None:
    for name in ("use_attn_result", "use_split_qkv_input", "use_attn_in", "use_hook_mlp_in"):
        setattr(lens.cfg, name, options.get(name, False))


def tokens_of(rows: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 61, (rows, 9))


@pytest.mark.parametrize("mode", ["", "use_attn_result use_hook_mlp_in", "use_split_qkv_input", "use_attn_in"])
def test_every_cached_activation(pair: tuple[Any, models.Decoder], mode: str) -> None:
    lens, model = pair
    use(lens, **dict.fromkeys(mode.split(), True))
    with torch.no_grad():
        _, cache = lens.run_with_cache(torch.tensor(tokens_of()))
    split = "split" in mode or "attn_in" in mode
    names = [name for name in cache if not (split and ".ln1." in name)]  # there with a head axis, all heads equal
    assert len(names) >= 2 + 15 * 3 + 2
    got = ij.capture(models.forward, names, output=False)(model, tokens_of())
    for name in names:
        np.testing.assert_allclose(got[name], cache[name].numpy(), atol=2e-5, rtol=1e-4, err_msg=name)


def test_under_padding(pair: tuple[Any, models.Decoder]) -> None:
    lens, model = pair
    use(lens)
    tokens, mask = tokens_of(2), np.ones((2, 9), bool)
    mask[0, :4] = False
    with torch.no_grad():
        _, cache = lens.run_with_cache(
            torch.tensor(tokens), attention_mask=torch.tensor(mask).long(), padding_side="left"
        )
    for name in ("blocks.2.attn.pattern", "blocks.2.attn.attn_scores"):
        captured = ij.capture(lambda m, t: m(t, attention_mask=mask), name, output=False)(model, tokens)
        want = cache[name.replace("attn.", "attn.hook_")].numpy()
        for row, real, want_row in zip(captured[name], mask, want, strict=True):
            np.testing.assert_allclose(np.asarray(row)[:, real][..., real], want_row[:, real][..., real], atol=2e-5)


@pytest.mark.parametrize(
    ("address", "hook", "option", "axes"),
    [
        ("blocks.1.q_input", "blocks.1.hook_q_input", "use_split_qkv_input", 2),
        ("blocks.1.k_input", "blocks.1.hook_k_input", "use_split_qkv_input", 2),
        ("blocks.1.v_input", "blocks.1.hook_v_input", "use_split_qkv_input", 2),
        ("blocks.1.attn_in", "blocks.1.hook_attn_in", "use_attn_in", 2),
        ("blocks.1.attn.result", "blocks.1.attn.hook_result", "use_attn_result", 2),
        ("blocks.1.attn.pattern", "blocks.1.attn.hook_pattern", "", 1),
        ("blocks.1.attn.z", "blocks.1.attn.hook_z", "", 2),
    ],
)
def test_an_edit_of_a_head_does_the_same(
    pair: tuple[Any, models.Decoder], address: str, hook: str, option: str, axes: int
) -> None:
    lens, model = pair
    use(lens, **({option: True} if option else {}))

    def double(x: Any, hook: Any) -> Any:
        x = x.clone()
        x.select(axes, 3).mul_(2.0)
        return x + 0.0

    with torch.no_grad():
        want = lens.run_with_hooks(torch.tensor(tokens_of()), fwd_hooks=[(hook, double)])
    got = ij.intervene(models.forward, {address: at(scale(2.0), head=3)})(model, tokens_of())
    np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_weights(pair: tuple[Any, models.Decoder]) -> None:
    lens, model = pair
    found = models.weights(model)
    for name in "W_E W_pos W_Q W_K W_V W_O W_in W_out W_U b_Q b_K b_V b_O b_in b_out".split():
        np.testing.assert_array_equal(found[name], getattr(lens, name).detach().numpy(), err_msg=name)
