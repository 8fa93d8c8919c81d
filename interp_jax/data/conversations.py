"""Conversations with a user of whom something is known: TalkTuner's, as messages for a chat template.

Reference: Chen et al. (2024), "Designing a dashboard for transparency and control of conversational AI",
https://arxiv.org/abs/2406.07882.
"""

from pathlib import Path
import re
from typing import NamedTuple
import zipfile

_FILE = re.compile(r"(?:.*/)?conversation_\d+_[a-z]+_(.+)\.txt")
_TURN = re.compile(r"^(?:### *)?(human|user|assistant|ai assistant):", re.IGNORECASE | re.MULTILINE)


class Conversation(NamedTuple):
    """Messages from the user's first one on, `{"role": ..., "content": ...}`, and what the user is."""

    messages: list[dict[str, str]]
    label: str


def read(file: str | Path) -> list[Conversation]:
    """The conversations of one of TalkTuner's zip files, in the order of their names.

    Each is a text `conversation_<number>_<attribute>_<label>.txt`, whose turns begin with "HUMAN:" or "### Human:" and
    the like. Turns without words are left out, and turns of one speaker in a row are one.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no zip file, or holds no such conversation.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile(suffix=".zip") as stream:
      ...     with zipfile.ZipFile(stream, "w") as archive:
      ...         archive.writestr("conversation_1_age_child.txt", "HUMAN: Hi!\\n\\nASSISTANT: Hello.")
      ...     (only,) = read(stream.name)
      >>> only.label, only.messages
      ('child', [{'role': 'user', 'content': 'Hi!'}, {'role': 'assistant', 'content': 'Hello.'}])
    """
    try:
        with zipfile.ZipFile(file) as archive:
            texts = {name: archive.read(name).decode("utf-8") for name in archive.namelist() if _FILE.fullmatch(name)}
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a zip file of texts: {error}") from None
    found = []
    for name, text in sorted(texts.items()):
        messages = _messages(text)
        match = _FILE.fullmatch(name)
        if messages and match:
            found.append(Conversation(messages, match[1]))
    if not found:
        raise ValueError(f"{file}: holds no conversation_<number>_<attribute>_<label>.txt with a user's turn")
    return found


def _messages(text: str) -> list[dict[str, str]]:
    _, *parts = _TURN.split(text)
    messages: list[dict[str, str]] = []
    for name, content in zip(parts[::2], parts[1::2], strict=True):
        role = "assistant" if "assistant" in name.lower() else "user"
        if not content.strip() or not (messages or role == "user"):
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content.strip()
        else:
            messages.append({"role": role, "content": content.strip()})
    return messages
