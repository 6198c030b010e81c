"""The life of an alert: `step` over verdicts drawn as timelines, and what must hold for any."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from alert_timelines import alerts_of, by_key, drawn, instant, verdict, without_repeats
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.schemas.alert import alert_id
from driftline.schemas.verdict import Verdict
from driftline.stream.alert import lifecycle, wording

# F fires, S gets worse, R resolves, B resolves and fires, in the column of the verdict that did it.
TIMELINES = {
    "one drifted look fires and one quiet look resolves": (1, """
ks 5m         · D D · ·
alerts          F   R
"""),
    "a change that comes back later is a new alert": (1, """
ks 5m         D · · D ·
alerts        F R   F R
"""),
    "quiet looks count only in a row": (2, """
ks 5m         D · D · · ·
alerts        F       R
"""),
    "every series that fired must be quiet, at its own time": (2, """
ks 5m         D · · · · · ·
ks 1h         · D D D · · ·
alerts        F         R
"""),
    "a series that never fired is not waited for": (1, """
ks 5m         D · ·
ks 1h         ? ? ?
alerts        F R
"""),
    "a series joins without a second alert": (1, """
ks 5m         D D · ·
ks 1h         · D D ·
psi 1h        · · D ·
alerts        F     R
"""),
    "a larger effect is told, once": (1, """
ks 5m         D C C D ·
alerts        F S     R
"""),
    "another series may bring the larger effect": (1, """
ks 5m         D D · ·
ks 1h         · C C ·
alerts        F S   R
"""),
    "what begins critical cannot get worse": (1, """
ks 5m         C D C ·
alerts        F     R
"""),
    "insufficient looks neither fire nor resolve nor break a row of quiet ones": (2, """
ks 5m         ? D ? ? · ? · ?
alerts          F         R
"""),
    "a series that ends leaves the alert to the others only if it was quiet": (1, """
ks 5m         D D ·
ks 1h         D
alerts        F
"""),
    "a series that fires at the window end at which the other is over: a new alert": (1, """
ks 5m         D ·
ks 1h         · D ·
alerts        F B R
"""),
    "if its verdict comes first, it joins": (1, """
ks 1h         · D ·
ks 5m         D ·
alerts        F   R
"""),
    "nothing drifted, nothing happens": (1, """
ks 5m         · · ? ·
alerts
"""),
}  # fmt: skip


def split(timeline: str) -> tuple[str, str]:
    drawing, _, expected = timeline.rpartition("alerts")
    # The label is blanked so that the columns stay where they are.
    return drawing, ("      " + expected.rstrip("\n"))[14:]


@pytest.mark.parametrize("name", TIMELINES)
def test_the_alerts_are_those_of_the_timeline(name: str) -> None:
    resolve_after, timeline = TIMELINES[name]
    drawing, expected = split(timeline)
    marks = {"drift": "F", "severity_raised": "S", "recovered": "R"}
    both = {"RF": "B"}
    rows: dict[str, Any] = {}
    found: dict[int, str] = {}
    for one in drawn(drawing):
        for alert in alerts_of([one], resolve_after, rows):
            column = next(i for i in range(99) if instant(i) == one.window.end)
            found[column] = found.get(column, "") + marks[alert.reason]
    found = {column: both.get(mark, mark) for column, mark in found.items()}
    assert found == {i: mark for i, mark in enumerate(expected[::2]) if mark != " "}


def test_an_alert_has_one_id_and_its_times_are_those_of_the_windows() -> None:
    #               0 1 2 3 4
    drawing = "ks 5m         · D C · ·"
    fired, worse, over = alerts_of(drawn(drawing), resolve_after=2)
    assert fired.starts_at == worse.starts_at == over.starts_at == instant(1)
    assert (fired.ends_at, worse.ends_at, over.ends_at) == (None, None, instant(4))
    assert {fired.id, worse.id, over.id} == {alert_id("delay|temperature", instant(1))}
    assert [a.state for a in (fired, worse, over)] == ["firing", "firing", "resolved"]
    assert [a.severity for a in (fired, worse, over)] == ["warning", "critical", "critical"]
    assert [a.reason for a in (fired, worse, over)] == ["drift", "severity_raised", "recovered"]


def test_an_alert_names_the_drifted_verdicts_behind_it() -> None:
    #               0 1 2 3
    drawing = """
ks 5m         · D D ·
ks 1h         · · C ·
"""
    verdicts = drawn(drawing)
    drifted = [v.id for v in verdicts if v.drifted]
    fired, worse, over = alerts_of(verdicts, 1)
    assert fired.verdicts == drifted[:1]
    assert worse.verdicts == over.verdicts == drifted


def test_a_long_alert_names_the_first_and_the_newest_and_its_row_stays_small() -> None:
    names = [f"detector_{i} {size}" for i in range(40) for size in ("5m", "2000 events")]
    verdicts = [verdict("D", column, name) for column in range(100) for name in names]
    verdicts += [verdict("·", column, name) for column in range(100, 102) for name in names]
    rows: dict[str, Any] = {}
    sizes: list[int] = []
    alerts = []
    for one in verdicts:
        alerts += alerts_of([one], 2, rows)
        sizes.append(len(orjson.dumps(rows)))
    first, over = alerts[0], alerts[1]
    drifted = [v.id for v in verdicts if v.drifted and v.detector != "detector_39"]
    assert max(sizes) < 10_000
    assert len(over.verdicts) == lifecycle.MAX_VERDICTS
    assert over.verdicts[0] == first.verdicts[0] == drifted[0]
    # 64 of the 80 series are followed: the newest ids are the last ones of those.
    followed = {f"{n.partition(' ')[0]}|{n.partition(' ')[2]}" for n in names[:64]}
    newest = [v.id for v in verdicts if v.drifted and f"{v.detector}|{v.window.size}" in followed]
    assert over.verdicts[1:] == newest[-(lifecycle.MAX_VERDICTS - 1) :]
    assert sizes[-1] < 150


@pytest.mark.parametrize(
    ("effect", "severity"),
    [
        # kind, value                       severity   why
        (None, "warning"),  #                          an embedding has no size of change
        (("mean_shift", None), "warning"),  #          a reference that never varied
        (("mean_shift", 0.99), "warning"),
        (("mean_shift", 1.0), "critical"),  #          the bound belongs to it
        (("mean_shift", -1.4), "critical"),  #         down is as bad as up
        (("share_shift", 0.24), "warning"),
        (("share_shift", -0.25), "critical"),
    ],
)
def test_severity_follows_the_effect(
    effect: tuple[str, float | None] | None, severity: str
) -> None:
    fields = None
    if effect is not None:
        kind, value = effect
        fields = {"kind": kind, "value": value, "unit": "u", "reference": 0.0, "window": 0.0}
        fields |= {"category": "EV"} if kind == "share_shift" else {}
    [alert] = alerts_of([verdict("D", 0, effect=fields)], 1)
    assert alert.severity == severity


def test_lowering_resolve_after_does_not_hold_an_alert_open() -> None:
    #               0 1 2 3 4     the configuration changes before 4
    drawing = "ks 5m         D · · · ·"
    verdicts = drawn(drawing)
    rows: dict[str, Any] = {}
    assert [a.reason for a in alerts_of(verdicts[:4], 5, rows)] == ["drift"]
    assert [a.reason for a in alerts_of(verdicts[4:], 2, rows)] == ["recovered"]


def test_a_series_that_lags_behind_cannot_end_an_alert_before_it_began() -> None:
    late = [verdict("D", 9), verdict("D", 3, "ks 1h"), verdict("·", 10), verdict("·", 4, "ks 1h")]
    _, over = alerts_of(late, 1)
    assert over.ends_at == instant(10)


def test_what_was_told_is_not_told_again_by_a_series_that_lags_behind() -> None:
    #            5m fires at 5 and is over at 6; 1h is read late, and is news only from 6 on
    rows: dict[str, Any] = {}
    list(alerts_of([verdict("D", 5), verdict("·", 6)], 1, rows))
    assert list(alerts_of([verdict("D", column, "ks 1h") for column in (4, 5)], 1, rows)) == []
    [alert] = alerts_of([verdict("D", 6, "ks 1h")], 1, rows)
    assert alert.starts_at == instant(6)


def test_quiet_verdicts_cost_no_write() -> None:
    rows: list[Any] = [None]
    #                        0 1 2 3 4 5 6
    for one in drawn("""
ks 5m         · · D · · · ·
ks 1h         · · · · D · ·
"""):
        new, _ = lifecycle.step(rows[-1], one.model_dump(), 2)
        if new is not rows[-1]:
            rows.append(new)
    # D at 2, two quiet of 5m, D at 4, two quiet of 1h
    assert len(rows) - 1 == 6


def test_step_leaves_the_row_it_was_given() -> None:
    row: Any = None
    for one in drawn("ks 5m         D C · D · ·"):
        before = copy.deepcopy(row)
        new, _ = lifecycle.step(row, one.model_dump(), 2)
        assert row == before
        row = orjson.loads(orjson.dumps(new))
        assert row == new


def test_a_row_of_another_version_is_refused_with_the_remedy() -> None:
    row: Any = {"v": 1, "floor": "", "firing": None}
    with pytest.raises(ValueError, match=r"version 1 for 'delay.temperature'.*run the alert"):
        lifecycle.step(row, verdict("D", 0).model_dump(), 1)


# Any stream of verdicts: columns of three series of two features of two models.

SERIES = ("ks 5m", "ks 1h", "psi 2000 events")
UNITS = tuple((model, feature) for model in ("delay", "fraud") for feature in ("age", "amount"))
MARKS = st.sampled_from("····DDC? ")
COLUMN = st.lists(MARKS, min_size=len(UNITS) * len(SERIES), max_size=len(UNITS) * len(SERIES))
STREAMS = st.lists(COLUMN, min_size=1, max_size=12)
RESOLVE_AFTER = st.integers(1, 3)


def stream(columns: list[list[str]]) -> list[Verdict]:
    places = [(unit, series) for unit in UNITS for series in SERIES]
    return [
        verdict(mark, i, series, model=unit[0], feature=unit[1])
        for i, marks in enumerate(columns)
        for mark, (unit, series) in zip(marks, places, strict=True)
        if mark != " "
    ]


@settings(deadline=None)
@given(STREAMS, RESOLVE_AFTER, st.data())
def test_reading_any_part_again_changes_nothing(
    columns: list[list[str]], resolve_after: int, data: st.DataObject
) -> None:
    #   ├───────────────┤            read, up to any verdict
    #         ├─────────┤            read again, from any verdict before
    verdicts = stream(columns)
    read = data.draw(st.integers(0, len(verdicts)))
    again = data.draw(st.integers(0, read))
    rows: dict[str, Any] = {}
    list(alerts_of(verdicts[:read], resolve_after, rows))
    before = copy.deepcopy(rows)
    assert list(alerts_of(verdicts[again:read], resolve_after, rows)) == []
    assert rows == before


@settings(deadline=None)
@given(STREAMS, RESOLVE_AFTER, st.data())
def test_a_crash_repeats_alerts_and_loses_none(
    columns: list[list[str]], resolve_after: int, data: st.DataObject
) -> None:
    #   ├──────────┤✗                 the alert is out, the row is not written
    #        ├───────────────────┤    started again from a committed offset, with the rows there are
    verdicts = stream(columns)
    undisturbed = by_key(alerts_of(verdicts, resolve_after))
    out: list[Any] = []
    rows: dict[str, Any] = {}
    at = 0
    for _ in range(data.draw(st.integers(1, 4))):
        dies = data.draw(st.integers(at, len(verdicts)))
        out += alerts_of(verdicts[at:dies], resolve_after, rows)
        if dies < len(verdicts):
            out += alerts_of(verdicts[dies : dies + 1], resolve_after, copy.deepcopy(rows))
        at = data.draw(st.integers(0, dies))
    out += alerts_of(verdicts[at:], resolve_after, rows)
    assert without_repeats(by_key(out)) == undisturbed


@settings(deadline=None)
@given(STREAMS, RESOLVE_AFTER, st.data())
def test_an_aborted_transaction_read_before_its_repetition_changes_nothing(
    columns: list[list[str]], resolve_after: int, data: st.DataObject
) -> None:
    #   ├── committed ──┼── aborted ──┤
    #                   ├── the same again ──▶
    verdicts = stream(columns)
    begin = data.draw(st.integers(0, len(verdicts)))
    end = data.draw(st.integers(begin, len(verdicts)))
    uncommitted = verdicts[:end] + verdicts[begin:]
    expected = by_key(alerts_of(verdicts, resolve_after))
    assert by_key(alerts_of(uncommitted, resolve_after)) == expected


@settings(deadline=None)
@given(STREAMS, RESOLVE_AFTER, st.randoms(use_true_random=False))
def test_the_order_among_features_is_irrelevant(
    columns: list[list[str]], resolve_after: int, random: Any
) -> None:
    verdicts = stream(columns)
    lanes: dict[str, list[Verdict]] = {}
    for one in verdicts:
        lanes.setdefault(lifecycle.key_of(one.model_dump()), []).append(one)
    mixed: list[Verdict] = []
    waiting = [list(lane) for lane in lanes.values()]
    while waiting:
        lane = random.choice(waiting)
        mixed.append(lane.pop(0))
        waiting = [lane for lane in waiting if lane]
    expected = by_key(alerts_of(verdicts, resolve_after))
    assert by_key(alerts_of(mixed, resolve_after)) == expected


@settings(deadline=None, max_examples=200)
@given(STREAMS, RESOLVE_AFTER)
def test_alerts_of_a_key_follow_each_other_and_end(
    columns: list[list[str]], resolve_after: int
) -> None:
    quiet = [["·"] * len(UNITS) * len(SERIES)] * resolve_after
    verdicts = stream(columns + quiet)
    alerts: dict[str, list[Any]] = {}
    for alert in alerts_of(verdicts, resolve_after):
        alerts.setdefault(alert.key, []).append(alert)
    drifted = {lifecycle.key_of(v.model_dump()) for v in verdicts if v.drifted}
    assert set(alerts) == drifted
    for found in alerts.values():
        assert found[-1].state == "resolved"
        previous_end = ""
        ids: list[str] = []
        for i, alert in enumerate(found):
            if alert.reason == "drift":
                assert i == 0 or found[i - 1].state == "resolved"
                assert alert.starts_at >= previous_end
                assert alert.id not in ids
                ids.append(alert.id)
                assert alert.verdicts
            else:
                assert alert.id == found[i - 1].id
                assert alert.starts_at == found[i - 1].starts_at
                assert (alert.severity, found[i - 1].severity) != ("warning", "critical")
            previous_end = alert.ends_at or previous_end


# Sentences.

MEAN = {
    "kind": "mean_shift", "value": 1.93, "unit": "reference standard deviations",
    "reference": 39.2, "window": 71.5,
}  # fmt: skip
SHARE = {
    "kind": "share_shift", "value": 0.12, "unit": "share", "reference": 0.1, "window": 0.22,
    "category": "EV",
}  # fmt: skip
MISSING = SHARE | {"value": 0.4, "reference": 0.0, "window": 0.4, "category": "(missing)"}
END = {"size": "7d", "start": "2013-06-17T00:00:00.000Z", "end": "2013-06-24T00:00:00.000Z"}

SENTENCES = [
    (
        {"effect": MEAN, "p_value": 1e-30, "alpha": 2e-4},
        "temperature of model delay rose by 1.93 reference standard deviations (39.2 → 71.5) in "
        "the 7d to 2013-06-24 00:00 UTC; KS p = 1e-30 at level 2e-4.",
    ),
    (
        {"effect": MEAN | {"value": -0.5, "window": 20.0}, "since": "2013-06-20T05:00:00.000Z"},
        "temperature of model delay fell by 0.5 reference standard deviations (39.2 → 20) in "
        "the 7d to 2013-06-24 00:00 UTC, since about 2013-06-20 05:00 UTC; "
        "KS p = 1e-9 at level 0.001.",
    ),
    (
        {"effect": SHARE, "feature": "carrier", "detector": "chi_squared", "p_value": 0.0},
        "carrier of model delay: share of carrier EV went from 10% to 22% in "
        "the 7d to 2013-06-24 00:00 UTC; chi-squared p < 1e-300 at level 0.001.",
    ),
    (
        {"effect": MISSING, "detector": "missing_rate", "segment": {"airport": "JFK"}},
        "missing values of temperature of model delay (airport = JFK) rose from 0% to 40% in "
        "the 7d to 2013-06-24 00:00 UTC; missing rate p = 1e-9 at level 0.001.",
    ),
    (
        {"effect": MEAN | {"value": None, "reference": 3.0, "window": 12345.6}},
        "temperature of model delay rose (3 → 12,346) in "
        "the 7d to 2013-06-24 00:00 UTC; KS p = 1e-9 at level 0.001.",
    ),
    (
        {"effect": None, "feature": "note", "detector": "online_mmd", "p_value": None,
         "alpha": None, "threshold": 0.021, "statistic": 0.0314},
        "note of model delay drifted from its reference in "
        "the 7d to 2013-06-24 00:00 UTC; online MMD statistic 0.0314 over threshold 0.021.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), SENTENCES)
def test_a_summary_says_what_changed_by_how_much_and_when(
    changes: dict[str, Any], sentence: str
) -> None:
    drifted = verdict("D", 0, window={**END, "n": 900}, **changes)
    [alert] = alerts_of([drifted], 1)
    assert alert.summary == sentence


def test_a_hopping_window_is_named_by_its_size() -> None:
    hopping = verdict("D", 0, window={**END, "size": "7d hop 1d", "n": 900})
    assert wording.window(hopping.model_dump()) == "the 7d to 2013-06-24 00:00 UTC"


def test_the_last_summary_says_since_when_it_is_over_and_what_it_was() -> None:
    fired, over = alerts_of(drawn("ks 5m         D · · ·"), 3)
    assert over.summary == (
        "Back to the reference since 2026-11-21 08:03 UTC, after 3 quiet looks in a row: "
        + fired.summary
    )
