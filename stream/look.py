"""A look: what all tests of a unit say together at one window end, and which features moved.

    verdicts of a unit that end at 08:00      5m   ks x  ks y  chi z  missing x …
                                              1h   ks x  ks y  chi z  missing x …   ← the last one
                                                                                      carries the look
A false-alarm budget is kept for the model as a whole, so an alarm is of the model as a whole. Its
first question is which features are responsible, and that is a question about all tests at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from ..detectors.multivariate import MULTIVARIATE
from .config.against import FITTED
from .verdicts import Verdict

FALSE_DISCOVERIES: Final = 0.01
"""Of the features called responsible at a look, the share expected to be so by chance, at most. An
alert gathers them over many looks, so its own share is larger."""
MAX_FEATURES: Final = 30
"""Responsible features named, the largest effects first: the look has to fit a message's header."""
CRITICAL_SD: Final = 1.0
"""A mean that moved by its own standard deviation: most values lie outside their usual range."""
CRITICAL_SHARE: Final = 0.25
"""A quarter of all events changed category."""
CRITICAL_SIMILARITY: Final = 0.5
"""The newest texts or vectors are half as similar to the reference as it is to itself."""

_KEPT = ("feature", "detector", "window", "statistic", "p_value", "effect", "since")


def with_look(verdicts: Sequence[Verdict], rate: float | None) -> Sequence[Verdict]:
    """The verdicts of one look, in order; the last of them carries `look_of` all."""
    if not verdicts:
        return verdicts
    look = look_of([v.fields for v in verdicts], rate)
    return [*verdicts[:-1], verdicts[-1]._replace(look=orjson.dumps(look))]


def look_of(verdicts: Sequence[Mapping[str, Any]], rate: float | None = None) -> dict[str, Any]:
    """What the verdicts of one unit at one window end say together.

    verdicts: as on the drift topic, decoded. rate: how often a look of a test has a p-value as small as
    its level by chance (`Calibration.rate`), None where levels are not calibrated.

    Returns `windows`: size → whether a test drifted, of the windows in which a test was made;
    `features`: the responsible ones, largest effect first, each with the fields of its clearest
    test; `n_features`: how many there are.

    >>> quiet = {"status": "ok", "feature": "x", "window": {"size": "5m"}, "drifted": False}
    >>> look_of([quiet])
    {'windows': {'5m': False}, 'features': [], 'n_features': 0}
    """
    windows: dict[str, bool] = {}
    for v in verdicts:
        if v["status"] == "ok":
            size = v["window"]["size"]
            windows[size] = windows.get(size, False) or v["drifted"]
    found = responsible(verdicts, rate) if any(windows.values()) else []
    features = [entry_of(v) for v in found[:MAX_FEATURES]]
    return {"windows": windows, "features": features, "n_features": len(found)}


def named(verdict: Mapping[str, Any]) -> str | None:
    """What a verdict's reference is called, None where the model has no other. verdict: or its entry."""
    return verdict.get("reference", {}).get("name")


def part_of(verdict: Mapping[str, Any]) -> str:
    """Name of the earlier part of the stream that it is against, "" where it is against the fitted
    reference. verdict: or its entry."""
    name = named(verdict)
    return "" if name is None or name == FITTED else name


def responsible(
    verdicts: Sequence[Mapping[str, Any]], rate: float | None = None
) -> list[Mapping[str, Any]]:
    """The clearest test of each feature that moved, largest effect first.

    A feature's p-value is its smallest at this look times the number of its tests (Bonferroni). Of
    those, Benjamini & Yekutieli's procedure (2001) takes as many as keep the expected share of false
    ones at FALSE_DISCOVERIES, whatever the dependence between features. It assumes p-values that are
    valid one by one: independent events, a reference from the same source; where levels are calibrated,
    they say how far p-values are from that (`_by_chance`). A feature with a drifted
    verdict is always among them: its level was set to be believed. Of several references against
    which a feature drifted the fitted one tells: it stays what it is, and it knows since when.
    """
    tests: dict[str, list[Mapping[str, Any]]] = {}
    for v in verdicts:
        if v["status"] == "ok":
            tests.setdefault(v["feature"], []).append(v)
    together = tests.pop(MULTIVARIATE, [])
    smallest = [min(1.0, len(of) * min(_by_chance(v, rate) for v in of)) for of in tests.values()]
    adjusted = benjamini_yekutieli(smallest)
    found = [
        _clearest(of)
        for of, q in zip(tests.values(), adjusted, strict=True)
        if q <= FALSE_DISCOVERIES or any(v["drifted"] for v in of)
    ]
    # All of them are none of them.
    if any(v["drifted"] for v in together):
        found.append(_clearest(together))
    return ranked(found)


def ranked(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Verdicts or a look's entries of several features, the largest effect first. What all numeric
    ones together came to is last, unless it is all that is drift by its own level."""
    found = sorted(entries, key=lambda e: (-magnitude(e["effect"]), _p_value(e), e["feature"]))
    alone = [e for e in found if e["feature"] != MULTIVARIATE]
    together = [e for e in found if e["feature"] == MULTIVARIATE]
    return [*alone, *together] if any(map(_by_itself, alone)) else [*together, *alone]


def _by_itself(entry: Mapping[str, Any]) -> bool:
    """Whether its own test drifted: others are named as those of an alarm that they did not raise."""
    return "alpha" not in entry or _p_value(entry) <= entry["alpha"]


def _clearest(of: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return min(
        of,
        key=lambda v: (
            not v["drifted"],
            bool(part_of(v)),
            _p_value(v),
            -magnitude(v["effect"]),
        ),
    )


def benjamini_yekutieli(p_values: Sequence[float]) -> list[float]:
    """Each p-value as the least expected share of false discoveries at which it is one of them.

    What `scipy.stats.false_discovery_control(…, method="by")` gives; importing that would hold up the
    first alert of a restarted stage for seconds.

    >>> [round(q, 4) for q in benjamini_yekutieli([0.01, 0.5, 0.02])]
    [0.055, 0.9167, 0.055]
    """
    n = len(p_values)
    harmonic = sum(1 / k for k in range(1, n + 1))
    adjusted, least = [1.0] * n, 1.0
    for rank, i in zip(
        range(n, 0, -1), sorted(range(n), key=p_values.__getitem__, reverse=True), strict=True
    ):
        least = min(least, p_values[i] * n * harmonic / rank)
        adjusted[i] = least
    return adjusted


def magnitude(effect: Mapping[str, Any] | None) -> float:
    """An effect in units of what is critical, so that means and shares can be ranked together; 0
    where none is known."""
    if effect is None or effect["value"] is None:
        return 0.0
    bound = CRITICAL_SD
    if effect["kind"] == "share_shift":
        bound = CRITICAL_SHARE
    elif effect["kind"] == "similarity_shift":
        bound = CRITICAL_SIMILARITY * effect["reference"]
    return abs(effect["value"]) / bound


def _p_value(verdict: Mapping[str, Any]) -> float:
    if verdict["p_value"] is None:
        # A test on its statistic says yes or no; an entry is there because it said yes.
        return 0.0 if verdict.get("drifted", True) else 1.0
    # A test with rare classes decides on the table with those pooled, too.
    pooled = verdict.get("detail", {}).get("pooled", {})
    return max(verdict["p_value"], pooled.get("p_value") or 0.0)


def _by_chance(verdict: Mapping[str, Any], rate: float | None) -> float:
    """How often a p-value as small comes by chance: itself, or more where its level says so.

    Values that follow each other make p-values too small, and the level, at which it is `rate`, much
    smaller yet. Between there and 1 the one is taken for a power of the other. Against earlier
    parts of the stream levels are not calibrated.
    """
    p, level = _p_value(verdict), verdict.get("alpha")
    if rate is None or level is None or part_of(verdict) or not 0 < p < 1:
        return p
    return p ** (math.log(rate) / math.log(level)) if level < rate else p


def entry_of(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What an alert needs of a verdict: JSON, of about 400 bytes."""
    level = "threshold" if "threshold" in verdict else "alpha"
    name = named(verdict)
    return {
        "id": verdict["id"],
        **{field: verdict[field] for field in _KEPT},
        **({} if name is None else {"reference": {"name": name}}),
        level: verdict[level],
        "since_earliest": verdict["detail"].get("since_earliest"),
        "since_latest": verdict["detail"].get("since_latest"),
        **{name: verdict["detail"][name] for name in ("shifts",) if name in verdict["detail"]},
    }
