"""All numeric features together, from events to alerts: the same bytes however the log is read, the
onset, the sentence, and what is refused."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from alert_timelines import incidents_of, looks, verdict
from stream_helpers import (
    T0,
    Log,
    always,
    at_random,
    config_of,
    in_turn,
    one_by_one,
    python_json,
    reference_of,
    replayed,
    shuffled,
)

from driftline.detectors.multivariate import MULTIVARIATE
from driftline.detectors.profile import Profile
from driftline.schemas.errors import ConfigError, ProfileError
from driftline.schemas.units import parse_time_ms
from driftline.schemas.verdict import Verdict
from driftline.stream.fit import collect, fit_rows
from driftline.stream.look import look_of
from driftline.stream.reference.check import check
from driftline.stream.tune.candidates import grid
from driftline.stream.tune.terminal import settings

NAMES = [f"x{i}" for i in range(8)]
CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [1h]
segment_by: [country]
features:
  {x0: numeric, x1: numeric, x2: numeric, x3: numeric,
   x4: numeric, x5: numeric, x6: numeric, x7: numeric}
detectors: {numeric: [ks], multivariate: [shiryaev_roberts]}
min_events: 30
alpha: 0.1
"""
ONSET_MS = T0 + 60 * 60_000


def rows(n: int, seed: int, step_ms: int, shift: float = 0.0) -> list[dict[str, Any]]:
    """Related features; every 50th value missing; from the onset on all have moved a little."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, 1))
    x = 0.7 * common + math.sqrt(1 - 0.7**2) * rng.normal(size=(n, 8))
    signs = np.array([1, -1, 1, -1, 1, -1, 1, -1])
    found = []
    for i in range(n):
        ms = T0 + i * step_ms
        values = (x[i] + shift * signs * (ms >= ONSET_MS)).round(4).tolist()
        features: dict[str, Any] = dict(zip(NAMES, values, strict=True))
        if i % 50 == 0:
            features[NAMES[i // 50 % 8]] = None
        segment = {"country": "ES" if i % 3 else "FR"}
        found.append({"id": f"e{i}", "ts": ms, "features": features, "segment": segment})
    return found


def test_a_replay_says_when_all_moved_a_little_whatever_way_the_log_is_read(
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path, CONFIG)
    references = {"fraud": reference_of(config, rows(3000, 1, 1000))}
    messages = [python_json(row) for row in rows(5000, 2, 1000, shift=0.25)]
    log = Log.dealt(messages, [i * 7 % 3 for i in range(len(messages))], 3)
    rng = np.random.default_rng(3)
    made = [
        replayed(config, references, log, order, sizes)[0]
        for order, sizes in (
            (in_turn, always(5000)),
            (one_by_one, at_random(rng, 800)),
            (shuffled(rng), at_random(rng, 3000)),
        )
    ]
    assert made[0] == made[1] == made[2]
    verdicts = [orjson.loads(v) for v in made[0]]
    whole = [v for v in verdicts if v["feature"] == MULTIVARIATE and not v["segment"]]
    first = next(v for v in whole if v["drifted"])
    assert ONSET_MS < parse_time_ms(first["window"]["end"]) <= ONSET_MS + 10 * 60_000
    assert abs(parse_time_ms(first["since"]) - ONSET_MS) <= 3 * 60_000
    assert (
        parse_time_ms(first["detail"]["since_earliest"])
        <= ONSET_MS
        <= parse_time_ms(first["detail"]["since_latest"])
    )
    before = [v for v in verdicts if parse_time_ms(v["window"]["end"]) <= ONSET_MS]
    assert not any(v["drifted"] for v in before)
    # Segments have their own.
    assert {v["segment"].get("country") for v in verdicts if v["feature"] == MULTIVARIATE} == {
        None, "ES", "FR",
    }  # fmt: skip
    for v in verdicts[:20]:
        Verdict.model_validate(v)


def of_all(column: int, **fields: Any) -> Any:
    shifts = {"x3": -0.31, "x1": 0.25, "x0": 0.2, "x7": 0.1}
    effect = {
        "kind": "distance",
        "value": 0.27,
        "unit": "reference standard deviations",
        "reference": 0.0,
        "window": 0.27,
    }
    given = {"p_value": 1e-5, "alpha": 1e-4, "effect": effect, "detail": {"shifts": shifts}}
    return verdict("D", column, "shiryaev_roberts 1h", feature=MULTIVARIATE, **given | fields)


def test_its_alert_is_a_sentence_about_all_and_names_what_moved_most() -> None:
    quiet = [verdict("·", 0, "ks 1h", feature=f"x{i}", p_value=0.2, alpha=1e-4) for i in range(8)]
    [alert] = incidents_of(looks([*quiet, of_all(0)]), 1)
    assert alert.summary.startswith("the numeric features together of model ")
    assert "moved by 0.27 reference standard deviations on average" in alert.summary
    assert "(most of all x3 -0.31, x1 +0.25, x0 +0.2)" in alert.summary
    assert "Shiryaev–Roberts p = 1e-5 at level 1e-4" in alert.summary


@pytest.mark.parametrize("own", [True, False])
def test_a_feature_that_drifted_by_itself_leads(own: bool) -> None:
    """x2 moved far from chance, but counts as drift by itself only where its level says so."""
    alpha = 1e-6 if own else 1e-12
    small = {"kind": "mean_shift", "value": 0.1, "unit": "reference standard deviations",
             "reference": 0.0, "window": 0.1}  # fmt: skip
    mark = "D" if own else "·"
    moved = verdict(mark, 0, "ks 1h", feature="x2", p_value=1e-8, alpha=alpha, effect=small)
    quiet = [verdict("·", 0, "ks 1h", feature="x1", p_value=0.5, alpha=alpha)]
    look = look_of([v.model_dump() for v in [moved, *quiet, of_all(0)]])
    named = [entry["feature"] for entry in look["features"]]
    assert named == (["x2", MULTIVARIATE] if own else [MULTIVARIATE, "x2"])
    [alert] = incidents_of(looks([moved, *quiet, of_all(0)]), 1)
    assert alert.summary.startswith("x2 of" if own else "the numeric features together of")
    assert ("moved with it: x2" in alert.summary) is not own


def test_of_one_numeric_feature_fit_says_why_not(tmp_path: Path) -> None:
    one = CONFIG.replace(
        CONFIG[CONFIG.index("features:") : CONFIG.index("detectors:")], "features: {x0: numeric}\n"
    )
    model = config_of(tmp_path, one).models["fraud"]
    found = fit_rows(collect(model, [python_json(row) for row in rows(300, 1, 1000)]), {})
    [why] = [entry.reason for _, entry in found.left_out if entry.name == MULTIVARIATE]
    assert re.search(r"one numeric feature, and it takes two .*; name more in `features`", why)
    check(model, found.reference)


def test_a_reference_that_does_not_know_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG)
    known = reference_of(config, rows(300, 1, 1000))
    units = {
        key: (segment, Profile(profile.features, profile.n_rows))
        for key, (segment, profile) in known.units.items()
    }
    with pytest.raises(ProfileError, match=r"does not say how numeric features go together"):
        check(config.models["fraud"], replace(known, units=units))


def test_a_feature_cannot_have_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reserved for all numeric features together"):
        config_of(tmp_path, CONFIG.replace("x0: numeric", "(multivariate): numeric"))


def test_tune_leaves_it_as_the_file_has_it_but_where_a_detector_is_alone(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG)
    found = grid(config.models["fraud"]).candidates
    early = ("shiryaev_roberts",)
    # ks alone is as the file has it without what tests all of them.
    assert {(c.numeric, c.multivariate) for c in found} >= {
        (("ks",), early), (("ks", *early), early), (("ks",), ()), (early, ()), (("psi",), ()),
    }  # fmt: skip
    assert {c.numeric for c in found if c.multivariate} == {("ks",), ("ks", *early)}
    assert settings(found[0])["detectors"]["multivariate"] == ["shiryaev_roberts"]
    assert found[0].config(config.models["fraud"]).detectors_for("multivariate") == (
        "shiryaev_roberts",
    )


def test_beside_earlier_parts_it_is_against_the_fitted_reference(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG + "against: [reference, {sliding: 30m}]\n")
    references = {"fraud": reference_of(config, rows(1500, 1, 1000))}
    messages = [python_json(row) for row in rows(4000, 2, 2000)]
    found = [orjson.loads(v) for v in replayed(config, references, Log([messages]))[0]]
    names = {(v["reference"]["name"], v["feature"] == MULTIVARIATE) for v in found}
    assert names == {("reference", True), ("reference", False), ("sliding 30m", False)}
    with pytest.raises(
        ConfigError,
        match=r"detectors\.multivariate\[0\].* alone.* or write reference into the list",
    ):
        config_of(tmp_path, CONFIG + "against: {sliding: 30m}\n")


def test_a_name_that_features_cannot_have_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """`(multivariate)` would have had two series of verdicts under one name, and their ids."""
    odd = ("(multivariate)", "score", 'a "quoted" one')
    text = CONFIG[: CONFIG.index("features:")] + CONFIG[CONFIG.index("detectors:") :]
    text = text.replace("[ks]", "[ks, shiryaev_roberts]")
    found = rows(400, 1, 1000)
    for row in found:
        row["features"] |= dict.fromkeys(odd, row["features"]["x0"])
    values = [python_json(row) for row in found]
    config = config_of(tmp_path, text)
    fitted = fit_rows(collect(config.models["fraud"], values), {})
    assert fitted.reference.whole.names == tuple(NAMES)
    reasons = {entry.name: entry.reason for _, entry in fitted.left_out}
    assert set(reasons) == set(odd)
    assert "reserved for all numeric features together" in reasons["(multivariate)"]
    assert "cannot be read" in reasons['a "quoted" one']
    made, _ = replayed(config, {"fraud": fitted.reference}, Log([values]))
    ids = [orjson.loads(v)["id"] for v in made]
    assert len(set(ids)) == len(ids) > 100
    # As the reasons say, another name makes a feature of each.
    fields = "input: {topic: inference, fields: {features.%s_in: '$.features.%s'}}"
    for name, free in (("score", "score"), ("(multivariate)", "multivariate")):
        config = config_of(
            tmp_path, text.replace("input: {topic: inference}", fields % (free, name))
        )
        mapped = fit_rows(collect(config.models["fraud"], values), {})
        assert f"{free}_in" in mapped.reference.whole.names
        assert name not in {entry.name for _, entry in mapped.left_out}


def test_a_name_that_cannot_be_read_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    config = config_of(tmp_path, CONFIG.replace("{x0: numeric", "{'x\"0': numeric"))
    with pytest.raises(ConfigError, match="a quotation mark, .* cannot be read: rename it"):
        reference_of(config, rows(400, 1, 1000))
