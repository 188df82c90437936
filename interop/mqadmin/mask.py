"""Makes two servers' outputs comparable: what must differ becomes a word that says what it was."""

from __future__ import annotations

import re

_RULES = [
    (re.compile(r"\d+(?:\.\d+)*@\d+#\d+"), "CLIENT"),
    (re.compile(r"\d+(?:\.\d+){3}@(\w+)"), r"\1"),
    (re.compile(r"\b(?:[0-9A-F]{32}|[0-9A-F]{56})(?![0-9A-F])"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[ #]\d\d:\d\d:\d\d(?:[,:.]\d+)?"), "TIME"),
    (re.compile(r"\b1[6-9]\d{11}\b"), "TIME"),
    (re.compile(r"\d+\.\d+(?:E-?\d+)?(?= *ms|%)"), "RATE"),
    (re.compile(r"(?<![\d.])-?\d+\.\d+(?:E-?\d+)?(?![\d.])"), "RATE"),
    (re.compile(r"\bat [\w.$]+\([\w.]+(?::\d+)?\)"), "FRAME"),
    (re.compile(r"127\.0\.0\.1:(?!BROKER)\d+"), "ADDRESS"),
    (re.compile(r"/(?:tmp|root|home)/[^\s:]+"), "PATH"),
    (re.compile(r"[ \t]+"), " "),
]


def mask(text: str, replaced: dict[str, str]) -> list[str]:
    """Lines without what names one server, one moment or one message."""
    for own, word in replaced.items():
        text = text.replace(own, word)
    for pattern, word in _RULES:
        text = pattern.sub(word, text)
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and line != "FRAME" and not line.startswith("... ")]


def keys(lines: list[str]) -> list[str]:
    """The keys of ``key : value`` and ``key = value`` lines; other lines whole."""
    return [re.split(r"\s*[:=]", line, maxsplit=1)[0] for line in lines]
