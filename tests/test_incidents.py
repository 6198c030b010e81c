"""Looks and the alerts of whole models: which features are responsible, and one page for all."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pytest
from alert_timelines import (
    alerts_of,
    by_key,
    drawn,
    incidents_of,
    instant,
    looks,
    verdict,
    without_repeats,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_alerting import RESOLVE_AFTER, STREAMS, stream

from driftline.schemas.alert import alert_id
from driftline.stream.alert import incident
from driftline.stream.look import FALSE_DISCOVERIES, MAX_FEATURES, look_of, magnitude, responsible

# F fires, S gets worse, J a feature joins, R resolves, in the column of the look that did it. A row
# is a window of a feature; its name is the feature's.
TIMELINES = {
    "one drifted look fires and one quiet look resolves": (1, """
a 5m          · D D · ·
alert           F   R
"""),
    "features that move at once are one alert, those that follow join": (1, """
a 5m          · D D D ·
b 5m          · D D D ·
c 5m          · · · D ·
alert           F   J R
"""),
    "it is over when all features are quiet": (1, """
a 5m          D · · · ·
b 5m          · D D D ·
alert         F J     R
"""),
    "each window that drifted is waited for, the others are not": (2, """
a 5m          D · · · · · ·
a 1h            D D · · · ·
a 7d              · · · · ·
alert         F       R
"""),
    "a feature that joins with a larger effect: worse is what matters": (1, """
a 5m          D D D ·
b 5m          · C · ·
alert         F S   R
"""),
    "insufficient looks neither fire nor resolve": (1, """
a 5m          ? D ? ? ·
alert           F     R
"""),
    "what comes back is a new alert": (1, """
a 5m          D · · D ·
alert         F R   F R
"""),
}  # fmt: skip
MARKS = {"drift": "F", "severity_raised": "S", "features_joined": "J", "recovered": "R"}


def of_features(drawing: str) -> list[Any]:
    """The verdicts of a drawing whose rows are `<feature> <window>`."""
    return [
        one.model_copy(update={"feature": one.detector, "detector": "ks"}) for one in drawn(drawing)
    ]


@pytest.mark.parametrize("name", TIMELINES)
def test_the_alerts_are_those_of_the_timeline(name: str) -> None:
    resolve_after, timeline = TIMELINES[name]
    drawing, _, expected = timeline.rpartition("alert")
    expected = ("     " + expected.rstrip("\n"))[14:]
    rows: dict[str, Any] = {}
    found: dict[int, str] = {}
    for pair in looks(of_features(drawing)):
        for alert in incidents_of([pair], resolve_after, rows):
            column = next(i for i in range(99) if instant(i) == pair[0].window.end)
            found[column] = found.get(column, "") + MARKS[alert.reason]
    assert found == {i: mark for i, mark in enumerate(expected[::2]) if mark != " "}


def test_one_id_counted_messages_and_the_features_with_the_largest_effect_first() -> None:
    verdicts = of_features("""
age 5m        D D D ·
zip 5m        · C C ·
""")
    fired, worse, over = incidents_of(looks(verdicts), 1)
    assert {a.id for a in (fired, worse, over)} == {alert_id("delay", instant(0))}
    assert [(a.n, a.state, a.severity) for a in (fired, worse, over)] == [
        (1, "firing", "warning"), (2, "firing", "critical"), (3, "resolved", "critical"),
    ]  # fmt: skip
    assert [[f.feature for f in a.features] for a in (fired, worse, over)] == [
        ["age"], ["zip", "age"], ["zip", "age"],
    ]  # fmt: skip
    assert worse.feature is None
    assert worse.key == "delay"
    assert over.ends_at == instant(3)
    assert worse.verdicts[0] == fired.verdicts[0]
    assert set(worse.verdicts) == {
        v.id for v in verdicts if v.drifted and v.window.end < instant(2)
    }


SINCE = {"since": "2026-11-21T07:20:00.000Z"}
SURE = {"since_earliest": "2026-11-21T07:19:00.000Z", "since_latest": "2026-11-21T07:25:00.000Z"}


def test_the_sentence_says_since_when_and_what_moved_with_it() -> None:
    verdicts = [
        verdict("C", 0, feature="temp", **SINCE, detail=SURE),
        *(verdict("D", 0, feature=name) for name in ("dewp", "humid", "wind")),
    ]
    [alert] = incidents_of(looks(verdicts), 1)
    assert alert.summary == (
        "temp of model delay rose by 1.5 reference standard deviations (10 → 11.5) in the 5m to "
        "2026-11-21 08:00 UTC, since about 2026-11-21 07:20 UTC; "
        "3 other features moved with it: dewp, humid, …; KS p = 1e-9 at level 0.001."
    )
    assert alert.features[0].since_earliest == SURE["since_earliest"]
    old = verdict("D", 0, **SINCE, detail=SURE | {"since_earliest": None})
    [alert] = incidents_of(looks([old]), 1)
    assert "UTC, since 2026-11-21 07:20 UTC or earlier; KS" in alert.summary


def compared(name: str) -> dict[str, Any]:
    return {"reference": {"id": "reference", "n": 5000, "name": name}}


def test_the_sentence_says_with_what_it_is_compared_where_that_is_not_the_fitted_reference() -> (
    None
):
    fitted, lately = compared("reference"), compared("sliding 7d")
    # A larger effect and a smaller p: the fitted reference tells all the same, if it saw the drift.
    both = [
        verdict("D", 0, p_value=1e-6, **fitted, **SINCE, detail=SURE),
        verdict("C", 0, p_value=1e-30, **lately),
    ]
    [alert] = incidents_of(looks(both), 1)
    assert alert.summary == (
        "temperature of model delay rose by 0.3 reference standard deviations (10 → 10.3) in the 5m "
        "to 2026-11-21 08:00 UTC, since about 2026-11-21 07:20 UTC; KS p = 1e-6 at level 0.001."
    )
    assert alert.features[0].reference == "reference"
    late = [verdict("·", 0, **fitted), verdict("D", 0, **lately)]
    over = [verdict("·", 1, **fitted), verdict("·", 1, **lately)]
    firing, resolved = incidents_of(looks([*late, *over]), 1)
    said = (
        "temperature of model delay rose by 0.3 reference standard deviations (10 → 10.3) in the 5m "
        "to 2026-11-21 08:00 UTC, compared with sliding 7d; KS p = 1e-9 at level 0.001."
    )
    assert firing.summary == said
    assert firing.features[0].reference == "sliding 7d"
    assert resolved.summary == f"Over since 2026-11-21 08:01 UTC, after one quiet look: {said}"
    # Without names, nothing is said of them.
    [alert] = incidents_of(looks([verdict("D", 0)]), 1)
    assert "reference" not in orjson.loads(alert.to_json())["features"][0]


@pytest.mark.parametrize("alerts", [incidents_of, alerts_of], ids=["model", "feature"])
def test_an_alert_holds_as_long_as_any_reference_sees_the_drift(alerts: Any) -> None:
    """
    reference    · D D D D · ·
    sliding 7d   D D · D · · ·      alert: fires in the first column, over in the last but one
    """
    rows = {"reference": "·DDDD··", "sliding 7d": "DD·D···"}
    verdicts = [
        verdict(marks[column], column, **compared(name))
        for column in range(7)
        for name, marks in rows.items()
    ]
    given = looks(verdicts) if alerts is incidents_of else verdicts
    found = [(a.reason, a.ends_at or a.starts_at) for a in alerts(given, 1)]
    assert found == [("drift", instant(0)), ("recovered", instant(5))]


def test_the_onset_told_is_the_newest_that_was_still_in_sight() -> None:
    """
    since          07:20   07:21 (more is known)   08:03 or earlier (out of sight)
    """
    told = [
        (SINCE, SURE),
        ({"since": "2026-11-21T07:21:00.000Z"}, SURE),
        ({"since": "2026-11-21T08:03:00.000Z"}, SURE | {"since_earliest": None}),
    ]
    verdicts = [verdict("D", i, **since, detail=detail) for i, (since, detail) in enumerate(told)]
    *_, over = incidents_of(looks([*verdicts, verdict("·", 3)]), 1)
    assert over.features[0].since == "2026-11-21T07:21:00.000Z"


def test_a_row_stays_small_however_many_features_and_looks() -> None:
    rows: dict[str, Any] = {}
    for column in range(12):
        found = [verdict("D", column, feature=f"feature {i}") for i in range(80)]
        alerts = list(incidents_of(looks(found), 1, rows))
        assert len(orjson.dumps(rows)) < 25_000
        assert [len(a.features) for a in alerts] == [incident.MAX_FEATURES] * (column == 0)


def test_a_row_of_another_version_is_refused_with_the_remedy() -> None:
    [(one, look)] = looks([verdict("D", 0)])
    row: Any = {"v": 1, "floor": "", "firing": None}
    with pytest.raises(ValueError, match=r"version 1 for 'delay'.*run the alert"):
        incident.step(row, one.model_dump(), look, 1)


@settings(deadline=None, max_examples=50)
@given(STREAMS, RESOLVE_AFTER, st.data())
def test_a_crash_repeats_alerts_and_loses_none(
    columns: list[list[str]], resolve_after: int, data: st.DataObject
) -> None:
    #   ├──────────┤✗                 the alert is out, the row is not written
    #        ├───────────────────┤    started again from a committed offset, with the rows there are
    looked = looks(stream(columns))
    undisturbed = by_key(incidents_of(looked, resolve_after))
    out: list[Any] = []
    rows: dict[str, Any] = {}
    at = 0
    for _ in range(data.draw(st.integers(1, 4))):
        dies = data.draw(st.integers(at, len(looked)))
        out += incidents_of(looked[at:dies], resolve_after, rows)
        if dies < len(looked):
            out += incidents_of(looked[dies : dies + 1], resolve_after, copy.deepcopy(rows))
        at = data.draw(st.integers(0, dies))
    out += incidents_of(looked[at:], resolve_after, rows)
    assert without_repeats(by_key(out)) == undisturbed


@settings(deadline=None, max_examples=50)
@given(STREAMS, RESOLVE_AFTER)
def test_alerts_of_a_unit_follow_each_other_and_end(
    columns: list[list[str]], resolve_after: int
) -> None:
    quiet = [["·"] * len(columns[0])] * resolve_after
    verdicts = stream(columns + quiet)
    by_unit: dict[str, list[Any]] = {}
    for alert in incidents_of(looks(verdicts), resolve_after):
        by_unit.setdefault(alert.key, []).append(alert)
    assert set(by_unit) == {v.key for v in verdicts if v.drifted}
    for found in by_unit.values():
        assert found[-1].state == "resolved"
        for before, after in pairwise(found):
            if after.reason == "drift":
                assert before.state == "resolved"
                assert (after.n, after.starts_at > before.ends_at) == (1, True)
            else:
                assert (after.id, after.n) == (before.id, before.n + 1)
                assert {f.feature for f in after.features} >= {f.feature for f in before.features}


# Which features are responsible.


def test_features_are_found_that_would_not_have_fired_alone_and_chance_is_not() -> None:
    #        level 1e-6: a fired; b is far from chance among 20 features, c is not
    p_values = {"a": 1e-9, "b": 1e-5, "c": 0.01} | {f"quiet {i}": 0.3 for i in range(17)}
    found = [
        verdict("D" if p <= 1e-6 else "·", 0, feature=name, p_value=p, alpha=1e-6)
        for name, p in p_values.items()
    ]
    look = look_of([v.model_dump() for v in found])
    assert [f["feature"] for f in look["features"]] == ["a", "b"]
    # Nothing drifted, so nobody asks.
    assert look_of([v.model_dump() for v in found[1:]])["features"] == []


def test_where_values_follow_each_other_a_small_p_value_is_no_discovery() -> None:
    # Levels say that p ≤ 1e-40 comes in 1 of 100,000 looks: 1e-10 then in one of 18, 1e-36 of 32,000.
    p_values = {"a": 1e-50, "b": 1e-36, "c": 1e-10} | {f"quiet {i}": 1e-3 for i in range(17)}
    found = [
        verdict("D" if p <= 1e-40 else "·", 0, feature=name, p_value=p, alpha=1e-40).model_dump()
        for name, p in p_values.items()
    ]
    named = [f["feature"] for f in look_of(found, rate=1e-5)["features"]]
    assert named == ["a", "b"]
    # What is not calibrated is taken at its word.
    assert {f["feature"] for f in look_of(found)["features"]} > {"a", "b", "c"}
    # And no p-value is taken for smaller than it is.
    own = verdict("·", 0, feature="d", p_value=1e-3, alpha=0.01).model_dump()
    look = look_of([*found, own], rate=1e-5)
    assert [f["feature"] for f in look["features"]] == ["a", "b"]


def test_a_feature_that_drifted_is_responsible_also_without_a_p_value() -> None:
    kinds = {"p_value": None, "alpha": None, "threshold": 0.02, "statistic": 0.5, "effect": None}
    found = [verdict("D", 0, "online_mmd 5m", feature="note", **kinds), verdict("·", 0)]
    [entry] = look_of([v.model_dump() for v in found])["features"]
    assert (entry["feature"], entry["threshold"]) == ("note", 0.02)
    [alert] = incidents_of(looks(found), 1)
    assert alert.summary.endswith("online MMD statistic 0.5 over threshold 0.02.")


def test_the_expected_share_of_false_discoveries_is_kept() -> None:
    """400 looks at 20 features in two windows, strongly dependent; three of them truly moved."""
    rng = np.random.default_rng(5)
    shares: list[float] = []
    found_true = 0
    for _ in range(400):
        common = rng.normal(size=2)
        p_values = np.empty((20, 2))
        for i in range(20):
            z = 0.7 * common + 0.7 * rng.normal(size=2) + (6.0 if i < 3 else 0.0)
            p_values[i] = np.clip([_two_sided(v) for v in z], 1e-300, 1)
        verdicts = [
            verdict("D" if p < 1e-8 else "·", 0, f"ks {size}", feature=f"f{i}", p_value=float(p))
            .model_dump()
            for i in range(20)
            for size, p in zip(("5m", "1h"), p_values[i], strict=True)
        ]  # fmt: skip
        named = {v["feature"] for v in responsible(verdicts)}
        true = {"f0", "f1", "f2"}
        shares.append(len(named - true) / max(1, len(named)))
        found_true += len(named & true)
    assert np.mean(shares) <= FALSE_DISCOVERIES
    assert found_true / 1200 > 0.9


def _two_sided(z: float) -> float:
    from math import erfc, sqrt

    return erfc(abs(z) / sqrt(2))


def test_means_and_shares_are_ranked_by_what_is_critical_of_each() -> None:
    effects = [
        {"kind": "mean_shift", "value": -1.5},
        {"kind": "share_shift", "value": 0.3},
        {"kind": "mean_shift", "value": 0.4},
        {"kind": "mean_shift", "value": None},
        None,
    ]
    assert [magnitude(e) for e in effects] == [1.5, pytest.approx(1.2), 0.4, 0.0, 0.0]


def test_a_look_names_a_bounded_number_and_says_how_many_there_are() -> None:
    found = [verdict("D", 0, feature=f"f{i}").model_dump() for i in range(2 * MAX_FEATURES)]
    look = look_of(found)
    assert len(look["features"]) == MAX_FEATURES
    assert look["n_features"] == 2 * MAX_FEATURES
