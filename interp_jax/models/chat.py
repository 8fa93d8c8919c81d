"""Chat templates: from a conversation to the text that a model was trained on, rendered as transformers does.

A template is a Jinja program that somebody published beside their weights. It runs in Jinja's sandbox and sees nothing
but plain JSON values.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
import functools
import json
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_MARK = "CONTINUE_FINAL_MESSAGE_TAG "  # its space shows whether the template strips messages


def named(entry: Any) -> dict[str, str]:
    """Name -> template, from `chat_template` of tokenizer_config.json: one string ("default") or a list of named ones.

    Raises ValueError for anything else.
    """
    if entry is None or isinstance(entry, str):
        return {} if entry is None else {"default": entry}
    try:
        return {str(one["name"]): str(one["template"]) for one in entry}
    except (TypeError, KeyError):
        raise ValueError(
            "tokenizer_config.json: chat_template must be a string or a list of {name, template}; correct the file"
        ) from None


def render(
    conversation: str | Sequence[Any],
    chat: Any,
    templates: Mapping[str, str],
    special: Mapping[str, str],
) -> str:
    """The text of a conversation.

    Args:
      conversation: messages, each a dict with "role" and "content" (or "tool_calls"); a string is one user's turn.
      chat: as `models.tokenize` takes it, but not None or False.
      templates: name -> template.
      special: the special tokens that a template may write, such as {"bos_token": "<s>"}.

    Raises:
      ValueError: no such template, a template that does not parse or that refuses the conversation, a variable that the
        template does not have, a message without a role or without content.

    Example:
      >>> render("hi", "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}", {},
      ...        {"bos_token": "<s>"})
      '<s>user: hi'
    """
    options = dict(chat) if isinstance(chat, Mapping) else {} if chat is True else {"chat_template": chat}
    program, variables = _compile(_chosen(options.pop("chat_template", "default"), templates))
    resumes = bool(options.pop("continue_final_message", False))
    messages = _messages(conversation)
    writes_on = options.pop("add_generation_prompt", not resumes and messages[-1]["role"] != "assistant")
    if resumes:
        _mark(messages[-1], writes_on)
    for name in options:
        if name not in variables:
            known = ", ".join(sorted(variables)) or "none"
            raise ValueError(f"chat: the template has no variable {name!r}; it has {known}")
    context = {"tools": None, "documents": None, **special, **_plain(options, "chat")}
    try:
        text = program.render(messages=messages, add_generation_prompt=bool(writes_on), **context)
    except jinja2.TemplateError as e:
        raise ValueError(f"chat: the template refuses the conversation: {_one_line(e)}") from None
    except Exception as e:  # a template is a program, and may fail like one
        raise ValueError(f"chat: the template fails on the conversation ({type(e).__name__}: {_one_line(e)})") from None
    return _cut(text) if resumes else text


def _chosen(name_or_template: Any, templates: Mapping[str, str]) -> str:
    if not isinstance(name_or_template, str):
        kind = type(name_or_template).__name__
        raise ValueError(f"chat: must be True, a template, the name of one, or a dict of options, not a {kind}")
    if name_or_template in templates:
        return templates[name_or_template]
    if "{" in name_or_template:
        return name_or_template
    if not templates:
        raise ValueError('chat: this tokenizer has no chat template; pass one, chat="{% for message in messages %}..."')
    raise ValueError(f"chat: there is no template {name_or_template!r}; there are {', '.join(sorted(templates))}")


def _messages(conversation: str | Sequence[Any]) -> list[dict[str, Any]]:
    """Copies, without keys that are None, which templates test by `is defined`."""
    if isinstance(conversation, str):
        return [{"role": "user", "content": conversation}]
    if isinstance(conversation, Mapping) or not conversation:
        raise ValueError("chat: a conversation is a string or a list of at least one message")
    messages = []
    for i, message in enumerate(conversation):
        if not isinstance(message, Mapping):
            raise ValueError(f"chat: message {i} must be a dict with 'role' and 'content', not {message!r:.40}")
        given = {key: value for key, value in message.items() if value is not None}
        if "role" not in given:
            raise ValueError(f"chat: message {i} has no role; give 'system', 'user' or 'assistant'")
        if "content" not in given and "tool_calls" not in given:
            raise ValueError(f"chat: message {i} ({given['role']}) has no content; give 'content', a string")
        messages.append(_plain(given, f"message {i}"))
    return messages


def _plain(value: Any, where: str) -> Any:
    """A copy out of plain JSON types: other objects have methods of which the sandbox knows nothing."""
    try:
        return json.loads(json.dumps(value))
    except TypeError as e:
        raise ValueError(f"chat: {where} must hold what JSON can ({_one_line(e)}); convert it first") from None


def _mark(message: dict[str, Any], writes_on: bool) -> None:
    if writes_on:
        raise ValueError("chat: continue_final_message and add_generation_prompt exclude each other; drop one")
    if not isinstance(message.get("content"), str):
        raise ValueError("chat: continue_final_message needs a last message whose content is a string")
    message["content"] += _MARK


def _cut(text: str) -> str:
    head, found, tail = text.rpartition(_MARK.strip())
    if not found:
        raise ValueError("chat: continue_final_message, but the template leaves the last message out; drop it")
    return head if tail.startswith(" ") else head.rstrip()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@functools.lru_cache(maxsize=32)
def _compile(template: str) -> tuple[jinja2.Template, frozenset[str]]:
    """The program and the variables that it reads, besides those of every call."""
    try:
        names = meta.find_undeclared_variables(_ENVIRONMENT.parse(template))
        return _ENVIRONMENT.from_string(template), frozenset(names - {"messages", "add_generation_prompt"})
    except jinja2.TemplateSyntaxError as e:
        raise ValueError(f"chat: the template has an error in line {e.lineno}: {_one_line(e)}; correct it") from None


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training. Here it is only read over."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class _Namespace(Namespace):
    """Jinja's own lets a template set `__class__` and its like."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        Namespace.__init__(self)
        for name, value in dict(*rest, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace takes no {name!r}")
        Namespace.__setitem__(self, name, value)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": _Namespace,
    }
    return environment


_ENVIRONMENT = _environment()
