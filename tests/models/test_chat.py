"""Chat templates: what they render, the bos token beside them, their files, and bad input in one line."""

from pathlib import Path
import re
from typing import Any

import numpy as np
import pytest

from interp_jax import models
from interp_jax.models import Decoder, Tokenizer

HI = {"role": "user", "content": "hi 🙂"}
YES = {"role": "assistant", "content": "yes, "}
USER = "<|im_start|>user\nhi 🙂<|im_end|>\n"
HEADER = "<|im_start|>assistant\n"
WITH_BOS = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
NO_SYSTEM = """{% for m in messages %}{% if m.role not in ('user', 'assistant') %}
{{ raise_exception('Only user and assistant
roles are supported!') }}{% endif %}{{ m.content | trim }}{% endfor %}"""


@pytest.mark.parametrize(
    ("prompt", "chat", "text"),
    [
        ("hi 🙂", True, USER + HEADER),
        ([HI], True, USER + HEADER),
        ([HI, YES], True, USER + HEADER + "yes, <|im_end|>\n"),
        ([HI], {"add_generation_prompt": False}, USER),
        ([HI, YES], {"add_generation_prompt": True}, USER + HEADER + "yes, <|im_end|>\n" + HEADER),
        ([HI, YES], {"continue_final_message": True}, USER + HEADER + "yes, "),
        ([HI, YES], {"continue_final_message": True, "chat_template": NO_SYSTEM}, "hi 🙂yes,"),
        ([HI], WITH_BOS, "<s>[user]hi 🙂"),
        (
            [HI],
            {"chat_template": "{{ mood }}{{ eos_token }}{{ pad_token }}{{ tools is none }}", "mood": "é"},
            "é</s>True",
        ),
        ("<b>", "{{ messages | tojson }}", '[{"role": "user", "content": "<b>"}]'),
        ("abc", "{% for c in messages[0].content %}{% if c == 'b' %}{% break %}{% endif %}{{ c }}{% endfor %}", "a"),
        (
            "a",
            "{% generation %}{% set x = 1 %}{{ messages[0].content }}{% endgeneration %}{{ x is defined }}",
            "aFalse",
        ),
        ("a", "{% set ns = namespace(n=1) %}{% for m in messages %}{% set ns.n = 2 %}{% endfor %}{{ ns.n }}", "2"),
    ],
)
def test_render(byte_tokenizer: Tokenizer, prompt: Any, chat: Any, text: str) -> None:
    assert byte_tokenizer.render(prompt, chat=chat) == text
    assert byte_tokenizer.encode(prompt, chat=chat) == byte_tokenizer.encode(text, bos=False)


def test_the_clock(byte_tokenizer: Tokenizer) -> None:
    assert re.fullmatch(r"\d\d \w{3} 20\d\d", byte_tokenizer.render("a", chat="{{ strftime_now('%d %b %Y') }}"))


def test_a_batch_of_conversations(byte_tokenizer: Tokenizer) -> None:
    prompts = ["hi 🙂", [HI], [HI, YES]]
    tokens, mask, last = models.tokenize(byte_tokenizer, prompts, chat=True)
    rows = [row[real].tolist() for row, real in zip(tokens, mask, strict=True)]
    assert rows == [byte_tokenizer.encode(prompt, chat=True) for prompt in prompts]
    assert rows[0] == rows[1] != rows[2]
    assert last.tolist() == [tokens.shape[1] - 1] * 3
    alone = models.tokenize(byte_tokenizer, [HI, YES], chat=True)[0]  # one conversation is one prompt
    assert alone.tolist() == [rows[2]]


def test_the_bos_token_is_there_once(byte_tokenizer: Tokenizer) -> None:
    configured = Tokenizer(byte_tokenizer.backend, byte_tokenizer.config | {"add_bos_token": True})
    for tokenizer in (byte_tokenizer, configured):
        for bos, chat, count in ((None, True, 0), (True, True, 1), (None, WITH_BOS, 1), (False, WITH_BOS, 1)):
            ids = tokenizer.encode("a", bos=bos, chat=chat)
            assert ids.count(tokenizer.bos_id) == count, (bos, chat)
            assert (ids[0] == tokenizer.bos_id) == bool(count)
    with pytest.raises(ValueError, match="bos=True, but the chat template writes '<s>' itself; leave bos out"):
        byte_tokenizer.encode("a", bos=True, chat=WITH_BOS)


def test_named_templates(byte_tokenizer: Tokenizer) -> None:
    listed = [{"name": "default", "template": "D"}, {"name": "rag", "template": "R"}]
    tokenizer = Tokenizer(byte_tokenizer.backend, {"chat_template": listed})
    assert [tokenizer.render("a", chat=chat) for chat in (True, "rag", {"chat_template": "rag"})] == ["D", "R", "R"]
    with pytest.raises(ValueError, match="there is no template 'tools'; there are default, rag"):
        tokenizer.render("a", chat="tools")


def test_files(model: Decoder, byte_tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A file wins over the config, more files are more names, and all of them survive saving."""
    folder, again = tmp_path / "given", tmp_path / "again"
    models.save(folder, model, byte_tokenizer)
    assert models.load(folder)[1].templates == byte_tokenizer.templates
    (folder / "chat_template.jinja").write_text("É {{ bos_token }}", encoding="utf-8")
    assert Tokenizer.from_folder(folder).config["chat_template"] == "É {{ bos_token }}"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("R")
    models.save(again, model, models.load(folder)[1])
    assert models.load(again)[1].templates == {"default": "É {{ bos_token }}", "rag": "R"}


def one_line(says: str, call: Any) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "chat", "says"),
    [
        (
            [[HI], [{"role": "system", "content": "x"}]],
            NO_SYSTEM,
            "prompt 1: .* Only user and assistant roles are supp",
        ),
        ([HI, {"role": "assistant"}], True, r"message 1 \(assistant\) has no content"),
        ([HI, {"role": "assistant", "content": None}], True, r"message 1 \(assistant\) has no content"),
        ([{"content": "x"}], True, "message 0 has no role"),
        ([[HI, "yes"]], True, "message 1 must be a dict with 'role' and 'content', not 'yes'"),
        ([[]], True, "a list of at least one message"),
        ([HI], "{% for message in messages %}\n{{ oops }", "an error in line 2: .*; correct it"),
        ([HI], "{{ messages[0].content + 1 }}", "fails on the conversation .TypeError"),
        ([HI], "{{ messages[0].__class__.__mro__ }}", "refuses the conversation: .*unsafe"),
        ([HI], "{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "refuses the conversation: .*__class__"),
        ([HI], {"enable_thinkng": False}, "the template has no variable 'enable_thinkng'; it has none"),
        ([{"role": "user", "content": np.zeros(2)}], True, "message 0 must hold what JSON can"),
        ([HI], {"continue_final_message": True, "add_generation_prompt": True}, "exclude each other"),
        (
            [HI],
            {"continue_final_message": True, "chat_template": "{{ messages[0].role }}"},
            "leaves the last message out",
        ),
        ([HI], 3, "must be True, a template, the name of one, or a dict of options, not a int"),
        ([HI], None, "a prompt must be a string, not a list; for messages use chat=True"),
    ],
)
def test_bad_input(byte_tokenizer: Tokenizer, prompts: Any, chat: Any, says: str) -> None:
    one_line(says, lambda: models.tokenize(byte_tokenizer, prompts, chat=chat))


def test_a_tokenizer_without_template(word_tokenizer: Tokenizer) -> None:
    one_line("has no chat template; pass one", lambda: models.tokenize(word_tokenizer, "the cat", chat=True))
    one_line(
        "chat_template must be a string or a list", lambda: Tokenizer(word_tokenizer.backend, {"chat_template": 3})
    )
