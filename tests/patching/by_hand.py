"""GPT-2's forward pass in numpy, any of whose inner values may be given: what the library's edits are held against."""

import numpy as np
from scipy.special import softmax


def run(w, tokens, given=None):
    """The logits `[batch position d_vocab]`, and every inner value by key.

    Keys: ("q_input" | "k_input" | "v_input" | "z", layer, head), ("mlp_in" | "mlp_out", layer); a value that is `given`
    stands where its own would.
    """
    w = {name: np.asarray(value, np.float64) for name, value in w.items()}
    tokens, given, seen = np.asarray(tokens), given or {}, {}

    def keep(key, value):
        seen[key] = given.get(key, value)
        return seen[key]

    n = tokens.shape[-1]
    x = w["W_E"][tokens] + w["W_pos"][:n]
    hidden = np.triu(np.ones((n, n), bool), 1)
    for layer in range(len(w["W_Q"])):
        attn_out = w["b_O"][layer] + 0 * x
        for head in range(w["W_Q"].shape[1]):
            q, k, v = (
                norm(keep((f"{kind.lower()}_input", layer, head), x), w["ln1_w"][layer], w["ln1_b"][layer])
                @ w[f"W_{kind}"][layer, head]
                + w[f"b_{kind}"][layer, head]
                for kind in "QKV"
            )
            scores = np.where(hidden, -np.inf, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
            attn_out = attn_out + keep(("z", layer, head), softmax(scores, -1) @ v) @ w["W_O"][layer, head]
        x = x + attn_out
        read = norm(keep(("mlp_in", layer), x), w["ln2_w"][layer], w["ln2_b"][layer])
        post = gelu(read @ w["W_in"][layer] + w["b_in"][layer])
        x = x + keep(("mlp_out", layer), post @ w["W_out"][layer] + w["b_out"][layer])
    return (norm(x, w["ln_final_w"], w["ln_final_b"]) @ w["W_U"]).astype(np.float32), seen


def norm(x, weight, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
