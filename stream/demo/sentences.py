"""Texts for `driftline demo text`: sentences from documentation that is installed anyway.

The readers of a documentation assistant ask about numerical computing (what numpy and scipy say of
themselves); then they turn to Python itself (its language reference).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pydoc_data.topics import topics
from random import Random
from typing import Final

_NUMERICAL: Final = (
    "numpy", "numpy.linalg", "numpy.random", "scipy.stats", "scipy.special", "scipy.optimize",
    "scipy.linalg", "scipy.sparse", "scipy.signal",
)  # fmt: skip
_BREAK: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
# Lines that are no prose: doctests, directives, lists, tables, rules.
_NO_PROSE: Final = (">>>", "..", "|", "+-", "==", "--", ":", "*", "-")
_WORDS: Final = range(6, 41)


@dataclass(frozen=True, slots=True)
class Sentences:
    """known: what the reference is made of. more: further ones of the same subject. new: others."""

    known: Sequence[str]
    more: Sequence[str]
    new: Sequence[str]


def load(n_known: int) -> Sentences:
    """The sentences, shuffled the same way every time, each of them once."""
    numerical = list(dict.fromkeys(_documented(_NUMERICAL)))
    language = list(dict.fromkeys(s for name in sorted(topics) for s in _prose(topics[name])))
    shuffle = Random(0)
    shuffle.shuffle(numerical)
    shuffle.shuffle(language)
    return Sentences(numerical[:n_known], numerical[n_known:], language)


def _documented(modules: Sequence[str]) -> Iterator[str]:
    for name in modules:
        for _, thing in sorted(vars(importlib.import_module(name)).items()):
            if inspect.ismodule(thing):
                continue
            text = getattr(thing, "__doc__", None)
            if isinstance(text, str):
                yield from _prose(text)


def _prose(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        if any(line.startswith(_NO_PROSE) for line in lines):
            continue
        for part in _BREAK.split(" ".join(lines)):
            sentence = re.sub(r"[`*]+", "", part).strip()
            letters = sum(c.isalpha() for c in sentence)
            whole = sentence[:1].isupper() and sentence.endswith(".")
            if whole and len(sentence.split()) in _WORDS and letters > 0.7 * len(sentence):
                yield sentence
