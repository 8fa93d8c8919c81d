"""Attribution graphs beside circuit-tracer: time, memory, and whether both find the same graph.

    python experiments/bench/graphs.py --model SmolLM2-135M-Instruct.Q4_1.gguf --peer-python OTHER_VENV/bin/python

The other environment has `pip install circuit-tracer==0.5.0` (on PyPI: a fork of decoderesearch/circuit-tracer), which
needs an older transformers than ours. Same weights in float32, same transcoders: random ones, whose biases let about
`--l0` features be active at a token, since speed does not ask what they mean. Two prompts of `--tokens` tokens: the
first call compiles, the second does not; then the whole process, and the most memory that it took. All active features
become nodes, on both sides, and batches are of one size.
"""

import argparse
from pathlib import Path
import tempfile

from processes import now, run, tell

TEXT = "When Mary and John went to the store, John gave a bottle of milk to his friend and then he went back home. "


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """The model as a Hugging Face folder, transcoders and prompts as arrays, and a name of the architecture."""
    import numpy as np

    import interp_jax as ij
    from interp_jax import models

    model, tokenizer = models.load(args.model, dtype="float32")
    models.save(folder / "model", model, tokenizer)
    words = np.array(tokenizer.encode(TEXT * 40, bos=False))
    bos = tokenizer.bos_id if tokenizer.bos_id is not None else words[0]
    prompts = np.stack([[bos, *words[start : start + args.tokens - 1]] for start in (0, 7)])
    read = ij.capture(models.forward, "blocks.mlp_in", output=False)(model, prompts[:1])["blocks.mlp_in"][:, 0]
    n_layers, _, d = read.shape
    rng = np.random.default_rng(0)
    W_enc = rng.normal(size=(n_layers, d, args.d_sae)).astype(np.float32) / d**0.5
    W_dec = rng.normal(size=(n_layers, args.d_sae, d)).astype(np.float32) / args.d_sae**0.5
    pre = np.asarray(read)[:, 1:] @ W_enc
    level = np.quantile(pre, 1 - args.l0 / args.d_sae, axis=(1, 2))
    b_enc = np.repeat(-level[:, None], args.d_sae, 1).astype(np.float32)
    np.savez(folder / "arrays.npz", W_enc=W_enc, W_dec=W_dec, b_enc=b_enc, prompts=prompts.astype(np.int32))


def ours(folder: Path, batch: int) -> None:
    import jax.numpy as jnp
    import numpy as np

    from interp_jax import dictionaries, graphs, models
    from interp_jax.cli import programs

    programs.keep()
    arrays = np.load(folder / "arrays.npz")
    model, _ = models.load(folder / "model", dtype="float32")
    W_enc, b_enc, W_dec = (jnp.asarray(arrays[name]) for name in ("W_enc", "b_enc", "W_dec"))
    zero = jnp.zeros(W_dec.shape[-1])
    transcoders = [dictionaries.Transcoder(*parts, zero) for parts in zip(W_enc, b_enc, W_dec, strict=True)]
    loaded, seconds = now(), []
    for tokens in arrays["prompts"]:
        start = now()
        made = graphs.attribution_graph(
            models.forward, model, transcoders, tokens, n_features=None, chunk=batch, targets=5
        )
        seconds.append(now() - start)
    features = made.where("feature")
    n = int(features.sum())
    np.savez(
        folder / "ours.npz",
        places=np.stack([made.layer, made.position, made.index], 1)[features],
        edges=made.edges[:n, :n].toarray(),
        logits=made.edges[made.where("logit")][:, :n].toarray(),
        tokens=made.index[made.where("logit")],
        errors=made.edges[:n][:, made.where("error")].toarray(),
        influence=made.influence()[features],
    )
    tell(load=loaded, first=seconds[0], second=seconds[1], features=n)


def theirs(folder: Path, batch: int) -> None:
    from circuit_tracer.attribution.attribute import attribute
    from circuit_tracer.graph import compute_node_influence
    from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
    import numpy as np
    import torch
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arrays = np.load(folder / "arrays.npz")
    peer = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    told = peer.config
    config = HookedTransformerConfig(
        n_layers=told.num_hidden_layers,
        n_heads=told.num_attention_heads,
        n_key_value_heads=told.num_key_value_heads,
        d_model=told.hidden_size,
        d_head=told.hidden_size // told.num_attention_heads,
        d_mlp=told.intermediate_size,
        d_vocab=told.vocab_size,
        n_ctx=256,
        act_fn="silu",
        gated_mlp=True,
        normalization_type="RMS",
        eps=told.rms_norm_eps,
        positional_embedding_type="rotary",
        rotary_adjacent_pairs=False,
        rotary_base=int(told.rope_theta),
        rotary_dim=told.hidden_size // told.num_attention_heads,
        final_rms=True,
        device="cpu",
    )
    model = TransformerLensReplacementModel(config)
    model.load_state_dict(convert_llama_weights(peer, config), strict=False)
    made = {}
    for layer in range(config.n_layers):
        one = SingleLayerTranscoder(
            config.d_model,
            arrays["W_enc"].shape[-1],
            torch.relu,
            layer,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        one.W_enc.data = torch.tensor(arrays["W_enc"][layer].T).contiguous()
        one.W_dec.data, one.b_enc.data = (torch.tensor(arrays[name][layer]) for name in ("W_dec", "b_enc"))
        made[layer] = one
    transcoders = TranscoderSet(made, feature_input_hook="hook_resid_mid", feature_output_hook="hook_mlp_out")
    model._configure_replacement_model(transcoders)
    model.tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    loaded, seconds = now(), []
    for tokens in arrays["prompts"]:
        start = now()
        graph = attribute(torch.tensor(tokens, dtype=torch.long), model, batch_size=batch, max_n_logits=5)
        seconds.append(now() - start)
    n, n_logits = len(graph.selected_features), len(graph.logit_probabilities)
    weights = torch.cat([torch.zeros(len(graph.adjacency_matrix) - n_logits), graph.logit_probabilities])
    adjacency = graph.adjacency_matrix.numpy()
    n_errors = config.n_layers * len(arrays["prompts"][0])
    np.savez(
        folder / "theirs.npz",
        places=graph.active_features.numpy()[graph.selected_features.numpy()],
        edges=adjacency[:n, :n],
        logits=adjacency[-n_logits:, :n],
        tokens=np.array([target.vocab_idx for target in graph.logit_targets]),
        errors=adjacency[:n, n : n + n_errors],
        influence=compute_node_influence(graph.adjacency_matrix, weights).numpy()[:n],
    )
    tell(load=loaded, first=seconds[0], second=seconds[1], features=n)


def compared(folder: Path) -> str:
    """How far the two graphs of the second prompt are from one another."""
    import numpy as np

    a, b = (np.load(folder / f"{side}.npz") for side in ("ours", "theirs"))
    if a["places"].shape != b["places"].shape or not (a["places"] == b["places"]).all():
        return f"other features are active: {len(a['places'])} and {len(b['places'])}"
    apart = {name: np.abs(a[name] - b[name]).max() / np.abs(b[name]).max() for name in ("edges", "errors", "influence")}
    order = np.argsort(a["tokens"]), np.argsort(b["tokens"])
    apart["logits"] = np.abs(a["logits"][order[0]] - b["logits"][order[1]]).max() / np.abs(b["logits"]).max()
    told = ", ".join(f"{name} {value:.1e}" for name, value in apart.items())
    return f"{len(a['places'])} features are the same; largest difference, of the largest value: {told}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--peer-python")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--d-sae", type=int, default=2048)
    parser.add_argument("--l0", type=int, default=12)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--child")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.child:
        {"ours": ours, "theirs": theirs}[args.child](args.folder, args.batch)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(args, folder)
        words = ["--model", args.model, "--folder", name, "--batch", str(args.batch), "--child"]
        told = {"ours": run(__file__, *words, "ours", XDG_CACHE_HOME=str(folder / "cache"))}
        told["ours, compiled before"] = run(__file__, *words, "ours", XDG_CACHE_HOME=str(folder / "cache"))
        if args.peer_python:
            told["circuit-tracer"] = run(__file__, *words, "theirs", python=args.peer_python)
        print(f"{args.tokens} tokens, {told['ours']['features']} features; seconds, GiB")
        print(f"{'':24}{'first':>9}{'second':>9}{'process':>9}{'memory':>9}")
        for side, x in told.items():
            print(f"{side:24}{x['first']:9.1f}{x['second']:9.1f}{x['process']:9.1f}{x['memory']:9.1f}")
        if args.peer_python:
            peer = told["circuit-tracer"]
            for side in list(told)[:2]:
                ratios = [f"{peer[name] / told[side][name]:.2f}x {name}" for name in ("first", "second", "process")]
                print(f"circuit-tracer to {side}: {', '.join(ratios)}")
            print(compared(folder))


if __name__ == "__main__":
    main()
