"""BERT, with its head of masked language modelling or, as models of sentences are, without one."""

from interp_jax.models.families.formats import Family, Rename, linear, norm
from interp_jax.models.families.options import REQUIRED

_LAYER = "encoder.layer.{}"

BERT = Family(
    architecture="BertForMaskedLM",
    base="BertModel",
    fields={
        "num_hidden_layers": ("n_layers", REQUIRED),
        "num_attention_heads": ("n_heads", REQUIRED),
        "hidden_size": ("d_model", REQUIRED),
        "intermediate_size": ("d_mlp", REQUIRED),
        "vocab_size": ("d_vocab", REQUIRED),
        "max_position_embeddings": ("n_ctx", REQUIRED),
        "type_vocab_size": ("n_types", 2),
        "hidden_act": ("act", "gelu"),
        "layer_norm_eps": ("norm_eps", 1e-12),
    },
    constant={"norms": "residual"},
    fixed={
        "tie_word_embeddings": (True,),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    },
    unread=frozenset(
        "attention_probs_dropout_prob hidden_dropout_prob classifier_dropout is_causal directionality "
        "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type".split()
    ),
    prefix="bert.",
    names=(
        Rename("embeddings.word_embeddings.weight", ("w_e",)),
        Rename("embeddings.position_embeddings.weight", ("w_pos",)),
        Rename("embeddings.token_type_embeddings.weight", ("w_type",)),
        *norm("embeddings.LayerNorm", "ln_embed"),
        *linear(f"{_LAYER}.attention.self.query", "blocks.{}.attn.q"),
        *linear(f"{_LAYER}.attention.self.key", "blocks.{}.attn.k"),
        *linear(f"{_LAYER}.attention.self.value", "blocks.{}.attn.v"),
        *linear(f"{_LAYER}.attention.output.dense", "blocks.{}.attn.o"),
        *norm(f"{_LAYER}.attention.output.LayerNorm", "blocks.{}.ln1"),
        *linear(f"{_LAYER}.intermediate.dense", "blocks.{}.mlp.in"),
        *linear(f"{_LAYER}.output.dense", "blocks.{}.mlp.out"),
        *norm(f"{_LAYER}.output.LayerNorm", "blocks.{}.ln2"),
    ),
    head=(
        *linear("cls.predictions.transform.dense", "head"),
        *norm("cls.predictions.transform.LayerNorm", "ln_final"),
        Rename("cls.predictions.bias", ("b_u",), vector=True),
    ),
    ignored=(
        "embeddings.position_ids",
        "cls.predictions.decoder.weight",  # the embedding once more
        "cls.predictions.decoder.bias",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    ),
    spellings={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)
