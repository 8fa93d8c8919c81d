"""The same prompts in transformers: ids, offsets, and conversations through templates of five styles and more."""

from pathlib import Path
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import jinja2
import numpy as np
import pytest

transformers = pytest.importorskip("transformers")

from interp_jax import models  # noqa: E402
from interp_jax.models import Tokenizer  # noqa: E402

pytestmark = pytest.mark.parity

HARD = [
    "Hello world",
    " Paris",
    "  two  spaces   three ",
    "line\n\nbreak\r\n\ttab \n",
    "naïve cafe\u0301 e\u0301\u0327 ﬁ Å \u212b",
    "日本語 Ελλάδα עברית العربية हिन्दी",
    "🙂 👍🏽 👨\u200d👩\u200d👧\u200d👦 🇫🇷",
    "zero\u200bwidth\u200cjoin\u200der\ufeff",
    "\x00\x01\x7f\x80\xff",
    "<s>a</s> <|endoftext|>b<|endoftext|> <unk>",
    " <|endoftext|> ",
    "<0x0A> ▁ Ġ",
    "def f(x):\n        return x  # 1234567890",
    "'s 've I'll WON'T",
    "\U000e0041\U0010fffd",
    "",
]

STYLES = {
    "chatml": """{% for message in messages %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "llama-3": """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" }}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if (message['role'] == 'assistant') %}{% set role = 'model' %}
    {% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}""",
    "mistral": """{{ bos_token }}{% set loop_messages = messages %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}{%- set loop_messages = messages[1:] %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if message.role == 'user' %}
        {{- ' [INST] ' + (system + '\\n\\n' if loop.first and system is defined else '') }}
        {{- message.content + ' [/INST]' }}
    {%- elif message.role == 'assistant' %}
        {%- generation %}{{- ' ' + message.content + eos_token }}{%- endgeneration %}
    {%- else %}
        {{- raise_exception('Only user, system and assistant roles are supported!') }}
    {%- endif %}
{%- endfor %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "everything": """{% macro show(m) %}
{{ m | tojson }}{{ m | tojson(indent=2) }}{{ m.nothing }}{{ m.x is defined }}
{% endmacro %}
{%- set ns = namespace(n=0, seen=[]) -%}
{% for message in messages %}
    {% if message.role == 'tool' %}{% continue %}{% endif %}
    {% set ns.n = ns.n + 1 %}
  {{ show(message) }}{% generation %}{% set ns.n = ns.n + 1 %}{% set role = 'inner' %}{% endgeneration %}
    {%- if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}
{{ ns.n }} {{ role }} {{ tools }} {{ documents is none }} {{ strftime_now('%Y') }} {{ unk_token }}{{ pad_token }}
{{ "<b>&'" | tojson }} {{ range(3) | list }} {{ dict(a=1).items() | list }}
    {%+ if true %} kept{% endif %}

""",
}

SYSTEM = {"role": "system", "content": "  Be kind.\n"}
USER = {"role": "user", "content": " What is  日本? 🙂\n<b>&'\"</b> "}
MODEL = {"role": "assistant", "content": "A country.\n\n "}
CONVERSATIONS = [
    [USER],
    [USER, MODEL],
    [SYSTEM, USER],
    [SYSTEM, USER, MODEL, {"role": "user", "content": ""}],
    [USER, {"role": "assistant", "content": "x", "name": None, "extra": {"k": ["é", 1.5, True]}}, USER, MODEL, USER],
    [USER, {"role": "tool", "content": "4"}],
]


@pytest.fixture(scope="module", params=["gpt2-tokenizer", "pythia-tokenizer", "stories260K"])
def pair(request: pytest.FixtureRequest, real_data: Path) -> tuple[Tokenizer, Any]:
    """Our tokenizer and transformers', which needs a token to pad with."""
    folder = real_data / request.param
    if (folder / "tokenizer.json").exists():
        peer = transformers.AutoTokenizer.from_pretrained(folder)
        peer.pad_token = peer.pad_token or peer.eos_token
    else:
        peer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "20B_tokenizer.json"))
        peer.pad_token = "<|endoftext|>"
    return Tokenizer.from_folder(folder), peer


def columns(encoding: Any, row: int, text: str) -> list[int | None]:
    return [encoding.char_to_token(row, i) for i in range(len(text))]


def same_tokens(pair: tuple[Tokenizer, Any], text: str) -> None:
    tokenizer, peer = pair
    want = peer(text)
    assert tokenizer.encode(text) == want["input_ids"]
    assert tokenizer.encode(text, bos=False) == peer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(want["input_ids"]) == peer.decode(want["input_ids"])
    starts, ends = tokenizer.offsets(text).T
    for i, token in enumerate(columns(want, 0, text)):
        covering = np.flatnonzero((starts <= i) & (i < ends)).tolist()
        assert covering[:1] == ([] if token is None else [token])


@pytest.mark.parametrize("text", HARD)
def test_hard_strings(pair: tuple[Tokenizer, Any], text: str) -> None:
    same_tokens(pair, text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30) | st.text(st.sampled_from("ab  \n.e\u0301🙂\u200d日<|endoftext|>s"), max_size=60))
def test_any_string(pair: tuple[Tokenizer, Any], text: str) -> None:
    same_tokens(pair, text)


def test_string_tokens(pair: tuple[Tokenizer, Any]) -> None:
    """Each token alone, but for a first space, which some decoders strip; all together they are the text."""
    tokenizer, peer = pair
    some = np.random.default_rng(0).integers(0, tokenizer.d_vocab, 3000)
    alone = peer.batch_decode(some[:, None].tolist())
    assert [string.lstrip(" ") for string in tokenizer.to_str_tokens(some)] == [string.lstrip(" ") for string in alone]
    for text in HARD[:4]:
        assert "".join(tokenizer.to_str_tokens(text, bos=False)).lstrip(" ") == text.lstrip(" ")


@pytest.mark.parametrize("side", ["left", "right"])
def test_spans_under_padding(pair: tuple[Tokenizer, Any], side: str) -> None:
    """Columns of every span of up to nine characters, in one padded batch."""
    tokenizer, peer = pair
    texts = [text for text in HARD if text]
    peer.padding_side = side
    want = peer(texts, padding=True)
    tokens, real, last = models.tokenize(tokenizer, texts, side=side)
    np.testing.assert_array_equal(real, want["attention_mask"])
    np.testing.assert_array_equal(tokens[real], np.array(want["input_ids"])[np.asarray(real)])
    assert all(real[row, column] and not real[row, column + 1 :].any() for row, column in enumerate(last))
    column = [columns(want, row, text) for row, text in enumerate(texts)]
    rng, n_spans = np.random.default_rng(0), 40
    for _ in range(n_spans):
        spans = [draw(rng, of_text) for of_text in column]
        mask, first, final = map(np.asarray, models.locate(tokenizer, texts, spans, side=side))
        start = [of_text[span[0]] for of_text, span in zip(column, spans, strict=True)]
        np.testing.assert_array_equal(mask.argmax(1), start)
        for row, (of_text, span) in enumerate(zip(column, spans, strict=True)):
            assert mask[row, of_text[span[1] - 1]]
            following = [token for token in of_text[span[1] :] if token is not None and token != of_text[span[1] - 1]]
            assert not following or not mask[row, following[0]]
            assert final[row] - first[row] + 1 == mask[row].sum()


def draw(rng: np.random.Generator, of_text: list[int | None]) -> tuple[int, int]:
    """A span that begins and ends at characters which transformers counts to a token."""
    counted = [i for i, token in enumerate(of_text) if token is not None]
    first = rng.integers(len(counted))
    last = rng.integers(first, min(first + 9, len(counted)))
    return counted[first], counted[last] + 1


@pytest.fixture(scope="module", params=["gpt2-tokenizer", "stories260K"])
def chatting(request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """style -> (ours, theirs), from a folder that transformers has saved with the template."""
    peer = transformers.AutoTokenizer.from_pretrained(real_data / request.param)
    marks = "<|im_start|> <|im_end|> <|start_header_id|> <|end_header_id|> <|eot_id|> <start_of_turn> <end_of_turn>"
    peer.add_special_tokens({"additional_special_tokens": marks.split()})

    def pair_of(style: str) -> tuple[Tokenizer, Any]:
        folder = tmp_path_factory.mktemp(style)
        peer.chat_template = STYLES[style]
        peer.save_pretrained(folder)
        return Tokenizer.from_folder(folder), peer

    return pair_of


def refusal(peer: Any, conversation: list[dict[str, Any]]) -> str | None:
    try:
        peer.apply_chat_template(conversation, tokenize=False)
    except jinja2.TemplateError as e:
        return str(e)


@pytest.mark.parametrize("style", list(STYLES))
def test_templates(chatting: Any, style: str) -> None:
    tokenizer, peer = chatting(style)
    refusals = [refusal(peer, conversation) for conversation in CONVERSATIONS]
    accepted = [one for one, refused in zip(CONVERSATIONS, refusals, strict=True) if refused is None]
    assert len(accepted) >= 3 and (len(accepted) < len(CONVERSATIONS)) == (style in ("gemma", "mistral"))
    for conversation, says in zip(CONVERSATIONS, refusals, strict=True):
        if says is not None:
            with pytest.raises(ValueError, match=re.escape(says)):
                tokenizer.render(conversation, chat=True)
    for writes_on in (False, True):
        ours, theirs = ({"chat": {"add_generation_prompt": writes_on}}, {"add_generation_prompt": writes_on})
        texts = [tokenizer.render(conversation, **ours) for conversation in accepted]
        assert texts == peer.apply_chat_template(accepted, tokenize=False, **theirs)
        ids = peer.apply_chat_template(accepted, return_dict=False, **theirs)
        for side in ("left", "right"):
            tokens, real, _ = map(np.asarray, models.tokenize(tokenizer, accepted, side=side, **ours))
            assert [row[here].tolist() for row, here in zip(tokens, real, strict=True)] == ids


@pytest.mark.parametrize("style", ["chatml", "llama-3", "gemma", "zephyr"])
def test_a_message_to_continue(chatting: Any, style: str) -> None:
    tokenizer, peer = chatting(style)
    for content in ("The answer is (", "The answer is \n", "x"):
        conversation = [USER, {"role": "assistant", "content": content}]
        want = peer.apply_chat_template(conversation, tokenize=False, continue_final_message=True)
        assert tokenizer.render(conversation, chat={"continue_final_message": True}) == want


def test_options_and_named_templates(chatting: Any, tmp_path: Path) -> None:
    tokenizer, peer = chatting("llama-3")
    chat = {"date_string": "1 Jan 2025", "bos_token": "!", "add_generation_prompt": True}
    assert tokenizer.render([USER], chat=chat) == peer.apply_chat_template([USER], tokenize=False, **chat)
    peer.chat_template = {"default": STYLES["llama-3"], "short": STYLES["zephyr"]}
    peer.save_pretrained(tmp_path)
    named = Tokenizer.from_folder(tmp_path)
    for name in ("default", "short"):
        want = peer.apply_chat_template([USER], chat_template=name, tokenize=False, add_generation_prompt=True)
        assert named.render([USER], chat=name) == want
    (tmp_path / "ours").mkdir()
    named.write(tmp_path / "ours")
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert back.chat_template == peer.chat_template
    assert back.apply_chat_template([USER], return_dict=False) == peer.apply_chat_template([USER], return_dict=False)


def test_one_template_survives_both_ways(chatting: Any, tmp_path: Path) -> None:
    tokenizer, peer = chatting("gemma")
    tokenizer.write(tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).chat_template == peer.chat_template == STYLES["gemma"]
