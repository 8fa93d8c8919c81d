"""Generation beside transformers: 20 tokens for 1, 8 and 32 streams, and what a capture and an edit cost.

    python experiments/bench/generate.py            (needs the extra `bench`; on an accelerator both sides use it)

SmolLM2-135M's shapes, random weights, float32, prompts of 32 tokens, greedy. Capture and edit: the residual stream of
block 15 at every step, to which a vector is added; transformers does both by one hook. Seconds are the median of five
turns after the first, which compiles.
"""

import jax
import jax.numpy as jnp
import numpy as np

from interp_jax import models
from interp_jax.interventions import add
from stopwatch import stopwatch

SITE, N_TOKENS, N_PROMPT = "blocks.15.resid_post", 20, 32
SHAPES = dict(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30)
HEADS = dict(num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)


def ours(vector):
    config = models.Config(
        n_layers=30, n_heads=9, n_kv_heads=3, d_model=576, d_mlp=1536, d_vocab=49152, n_ctx=2048, family="llama",
        norm="rmsnorm", positions="rotary", act="silu", gated=True, attn_bias=False, mlp_bias=False,
    )  # fmt: skip
    model = models.Decoder.create(jax.random.key(0), config)
    edits = {SITE: add(jnp.asarray(vector))}
    return {
        "plain": lambda tokens: models.generate(model, jnp.asarray(tokens), N_TOKENS),
        "capture and edit": lambda tokens: models.generate(
            model, jnp.asarray(tokens), N_TOKENS, edits=edits, capture=SITE
        ),
    }


def peer(vector):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LlamaForCausalLM(LlamaConfig(**SHAPES, **HEADS)).eval().to(device)
    vector, kept = torch.tensor(vector, device=device), []

    def plain(tokens):
        tokens = torch.tensor(tokens, device=device)
        options = {"max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS, "do_sample": False, "pad_token_id": 0}
        return model.generate(tokens, attention_mask=torch.ones_like(tokens), **options).cpu().numpy()

    def hooked(tokens):
        def edit(module, args, out):
            kept.append(out)
            return out + vector

        hook = model.model.layers[15].register_forward_hook(edit)
        try:
            return plain(tokens)
        finally:
            hook.remove()
            kept.clear()

    return {"plain": plain, "capture and edit": hooked}


if __name__ == "__main__":
    print(f"{jax.devices()[0].device_kind}; {N_TOKENS} tokens after {N_PROMPT}")
    vector = np.random.default_rng(0).normal(size=576).astype(np.float32)
    sides = {"ours": ours(vector), "transformers": peer(vector)}
    for streams in (1, 8, 32):
        tokens = np.random.default_rng(1).integers(0, 40_000, (streams, N_PROMPT))
        calls = {(side, name): call for side, each in sides.items() for name, call in each.items()}
        seconds = stopwatch({key: (lambda call=call, tokens=tokens: call(tokens)) for key, call in calls.items()})
        for (side, name), (first, steady) in seconds.items():
            ratio = seconds["transformers", name][1] / steady
            extra = steady / seconds[side, "plain"][1] - 1
            told = f"{steady:8.3f}s   first {first:6.2f}s   {ratio:5.2f}x transformers   {extra:+5.0%} over plain"
            print(f"{streams:3} streams, {side + ', ' + name:32} {told}", flush=True)
