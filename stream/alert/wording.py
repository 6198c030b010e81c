"""Verdicts in words: the sentences of alerts, and the pieces of them that a terminal shows.

All text is a function of the verdict alone, so that a repeated alert is the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...detectors.multivariate import MULTIVARIATE
from ..look import part_of

# Names people say; any other detector is called by its own with spaces, `online mmd`.
DETECTORS: Final[Mapping[str, str]] = {
    "ks": "KS",
    "chi_squared": "chi-squared",
    "psi": "PSI",
    "mmd": "MMD",
    "online_mmd": "online MMD",
    "cramer_von_mises": "Cramér–von Mises",
    "jensen_shannon": "Jensen–Shannon",
    "wasserstein": "Wasserstein",
    "fisher": "Fisher",
    "cusum": "CUSUM",
    "shiryaev_roberts": "Shiryaev–Roberts",
}

SHIFTED: Final = 3  # features whose shifts are told where all of them together have drifted
NAMED: Final = 2  # other features that a sentence names
NO_VALUE: Final = ("(unseen)", "(missing)")  # classes of a table that are no category


def number(value: float | None) -> str:
    """Three significant digits, thousands in full: 39.2, 12,345, 2e-4; `unknown` for None.

    >>> number(1.9321), number(12345.6), number(0.0002)
    ('1.93', '12,346', '2e-4')
    """
    if value is None:
        return "unknown"
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    if value and not 1e-3 <= abs(value) < 1e15:
        return _scientific(value, 3)
    return f"{value:.3g}"


def small(value: float, digits: int = 1) -> str:
    """A probability: 0.03, 1e-30. Zero is what a float made of it: `< 1e-300`.

    >>> small(0.0312), small(1.2e-30), small(0.0), small(0.00042, digits=2)
    ('0.03', '1e-30', '< 1e-300', '4.2e-4')
    """
    if value == 0:
        return "< 1e-300"
    return f"{value:.{digits}g}" if value >= 1e-3 else _scientific(value, digits)


def _scientific(value: float, digits: int) -> str:
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def percent(share: float | None) -> str:
    """A share as a percentage of at most three digits: 22%, 0.5%; `unknown` for None."""
    return "unknown" if share is None else f"{number(100 * share)}%"


def moment(instant: str) -> str:
    """`2013-06-24 00:00 UTC`, with seconds where there are any.

    >>> moment("2013-06-24T00:00:00.000Z"), moment("2013-06-24T00:00:07.500Z")
    ('2013-06-24 00:00 UTC', '2013-06-24 00:00:07.5 UTC')
    """
    day, _, clock = instant.removesuffix("Z").partition("T")
    clock = clock.rstrip("0").removesuffix(".") if "." in clock else clock
    clock = clock.removesuffix(":00") if clock.count(":") == 2 else clock
    return f"{day} {clock} UTC"


def subject(verdict: Mapping[str, Any]) -> str:
    """`temperature of model delay`, and where there is a segment ` (carrier = EV)`."""
    segment = ", ".join(f"{column} = {value}" for column, value in verdict["segment"].items())
    feature = verdict["feature"]
    if feature == MULTIVARIATE:
        feature = "the numeric features together"
    of = f"{feature} of model {verdict['model']}"
    if verdict["detector"] == "missing_rate":
        of = f"missing values of {of}"
    return f"{of} ({segment})" if segment else of


def window(verdict: Mapping[str, Any]) -> str:
    """`the 7d to 2013-06-24 00:00 UTC`."""
    size = verdict["window"]["size"].partition(" hop ")[0]
    return f"the {size} to {moment(verdict['window']['end'])}"


def effect(verdict: Mapping[str, Any]) -> str:
    """The change, without its subject: `rose by 1.93 reference standard deviations (39.2 → 71.5)`,
    `rose from 0% to 40%`, `: share of carrier EV went from 10% to 22%`, `was 3 in all reference rows;
    12% differ`, `: spread rose by 0.5 reference standard deviations (2 → 3)`, `moved away by 0.4
    reference standard deviations (3.2)`."""
    found = verdict["effect"]
    if found is None:
        return "drifted from its reference"
    value, before, after = found["value"], found["reference"], found["window"]
    if found["kind"] == "share_shift":
        shares = f"from {percent(before)} to {percent(after)}"
        if verdict["detector"] == "missing_rate":
            return f"{_verb(before, after)} {shares}"
        if before == 1 and found["category"] not in NO_VALUE:
            differ = None if after is None else 1 - after
            return f"was {found['category']} in all reference rows; {percent(differ)} differ"
        return f": share of {verdict['feature']} {found['category']} went {shares}"
    if found["kind"] == "similarity_shift":
        verb = _verb(before, after)
        return f": similarity to the reference {verb} from {number(before)} to {number(after)}"
    if verdict["feature"] == MULTIVARIATE:
        most = verdict.get("detail", verdict).get("shifts", {})
        named = ", ".join(f"{name} {shift:+.2g}" for name, shift in [*most.items()][:SHIFTED])
        return f"moved by {number(value)} {found['unit']} on average (most of all {named})"
    if found["kind"] == "distance":
        return f"moved away by {number(value)} {found['unit']} ({number(after)})"
    span = f"({number(before)} → {number(after)})"
    if found["kind"] == "spread_shift":
        verb = "fell" if value is not None and value < 0 else "rose"
        size = "" if value is None else f" by {number(abs(value))} {found['unit']}"
        return f": spread {verb}{size} {span}"
    if value is None:
        return f"{_verb(before, after)} {span}"
    return f"{'fell' if value < 0 else 'rose'} by {number(abs(value))} {found['unit']} {span}"


def _verb(before: float | None, after: float | None) -> str:
    if before is None or after is None or before == after:
        return "changed"
    return "fell" if after < before else "rose"


def against(verdict: Mapping[str, Any]) -> str:
    """`, compared with sliding 7d lag 1d`, or nothing where that is the fitted reference.

    verdict: or a look's entry.
    """
    part = part_of(verdict)
    return f", compared with {part}" if part else ""


def decision(verdict: Mapping[str, Any]) -> str:
    """What the test decided on: `KS p = 1e-30 at level 2e-4`."""
    detector = DETECTORS.get(verdict["detector"], verdict["detector"].replace("_", " "))
    if "alpha" not in verdict:
        statistic, threshold = number(verdict["statistic"]), number(verdict["threshold"])
        return f"{detector} statistic {statistic} over threshold {threshold}"
    p = small(verdict["p_value"])
    equals = p if p.startswith("<") else f"= {p}"
    return f"{detector} p {equals} at level {small(verdict['alpha'], digits=2)}"


def since(verdict: Mapping[str, Any]) -> str:
    """`, since about 2013-06-20 05:00 UTC`, `, since 2013-06-20 05:00 UTC or earlier`, or nothing.

    verdict: or a look's entry, which has the confidence set beside it and not in `detail`.
    """
    if not verdict["since"]:
        return ""
    around = verdict.get("detail", verdict)
    if around.get("since_latest") and around["since_earliest"] is None:
        return f", since {moment(verdict['since'])} or earlier"
    return f", since about {moment(verdict['since'])}"


def others(features: Sequence[str]) -> str:
    """`; 3 other features moved with it: humidity, pressure, …`, or nothing."""
    if not features:
        return ""
    named = ", ".join(features[:NAMED]) + (", …" if len(features) > NAMED else "")
    return f"; {len(features)} other feature{'s'[: len(features) > 1]} moved with it: {named}"


def drifted(verdict: Mapping[str, Any], with_it: Sequence[str] = ()) -> str:
    """The summary of an alert, from the verdict that fired it or made it worse.

    with_it: other features that moved, the largest effect first.
    """
    change = effect(verdict)
    joint = "" if change.startswith(":") else " "
    about = f"{subject(verdict)}{joint}{change} in {window(verdict)}"
    about += f"{against(verdict)}{since(verdict)}"
    return f"{about}{others(with_it)}; {decision(verdict)}."


def recovered(at: str, resolve_after: int, summary: str, *, fitted: bool) -> str:
    """The summary of an alert that is over.

    at: since when. resolve_after: quiet verdicts in a row, in each series that had fired.
    summary: what the alert said while firing. fitted: whether it was about the fitted reference
    alone; an earlier part of the stream may have come to look like the windows.
    """
    looks = "one quiet look" if resolve_after == 1 else f"{resolve_after} quiet looks in a row"
    over = "Back to the reference" if fitted else "Over"
    return f"{over} since {moment(at)}, after {looks}: {summary}"
