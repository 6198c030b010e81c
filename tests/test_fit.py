"""References: made from files of any kind, refused with reasons, kept, and noticed when changed."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import orjson
import pyarrow
import pyarrow.parquet
import pytest
from stream_helpers import BASE, config_of, python_json

from driftline.detectors.profile import column_kind
from driftline.schemas.errors import ConfigError, DriftlineError, ProfileError
from driftline.stream import profiles
from driftline.stream.config.document import ModelConfig
from driftline.stream.decode import Decoder, Wanted
from driftline.stream.fit import Fitted, collect, constants, fit_rows
from driftline.stream.reference.check import references
from driftline.stream.sources import BATCH, file_batches, file_rows


def model_of(**keys: Any) -> ModelConfig:
    return ModelConfig.model_validate({
        "name": "fraud", "input": {"topic": "inference"}, "reference": "./r", "windows": ["5m"],
        **keys,
    })  # fmt: skip


def fit_of(events: Iterable[Mapping[str, Any]] | Iterable[bytes], **keys: Any) -> Fitted:
    values = [e if isinstance(e, bytes) else python_json(e) for e in events]
    return fit_rows(collect(model_of(**keys), values), {})


def flat_rows(n: int = 60) -> list[dict[str, Any]]:
    """Rows as a table has them, with holes."""
    rng = np.random.default_rng(1)
    return [
        {
            "id": str(1000 + i), "ts": 1_700_000_000_000 + i, "version": i % 2,
            "amount": None if i % 11 == 0 else round(float(rng.normal()), 4),
            "count": int(rng.integers(0, 9)), "vip": bool(rng.random() < 0.4),
            "merchant": None if i % 13 == 0 else str(rng.choice(["a", "b", "ñ,\"q\""])),
            "prediction": str(rng.choice(["legit", "fraud"])), "score": round(rng.random(), 3),
        }
        for i in range(n)
    ]  # fmt: skip


HEAD = ("id", "ts", "version", "prediction", "score")


def as_event(row: Mapping[str, Any]) -> dict[str, Any]:
    head = {name: row[name] for name in HEAD}
    return head | {"features": {k: v for k, v in row.items() if k not in HEAD}}


def written(directory: Path, kind: str) -> Path:
    rows = flat_rows()
    path = directory / f"rows.{kind}"
    if kind.startswith("jsonl") or kind == "ndjson":
        lines = b"\n\n".join(orjson.dumps(as_event(row)) for row in rows) + b"\n"
        path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else lines)
    elif kind.startswith("csv"):
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        if kind.endswith("gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
    else:
        nested = [as_event(row) for row in rows]
        path = directory / "nested.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(nested), path)
    return path


KINDS = ("jsonl", "ndjson", "jsonl.gz", "csv", "csv.gz", "parquet", "nested")
# Changes when what is compared with changes, and only then: references out there carry it.
GOLDEN = "afff8b6f347c2ef2b9753c610dd7e6cb"


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_are_the_same_profile_whatever_the_file(tmp_path: Path, kind: str) -> None:
    fitted = fit_of(file_rows(written(tmp_path, kind)))
    assert {f.name: f.kind for f in fitted.reference.whole.features} == {
        "amount": "numeric", "count": "numeric", "vip": "boolean", "merchant": "categorical",
        "prediction": "categorical", "score": "numeric",
    }  # fmt: skip
    assert fitted.reference.whole.n_rows == 60
    by_name = {f.name: f for f in fitted.reference.whole.features}
    assert (by_name["amount"].missing, by_name["merchant"].missing) == (6, 5)
    assert fitted.reference.whole.id == GOLDEN


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_a_file_are_events_that_a_replay_takes(tmp_path: Path, kind: str) -> None:
    [batch] = file_batches(written(tmp_path, kind), "inference")
    wanted = Wanted({"amount": "numeric", "vip": "boolean", "score": "numeric"})
    decoder = Decoder(model_of().input, wanted)
    events, errors = decoder.decode(batch.messages.values)
    assert errors == []
    assert decoder.column(events, "id") == [row["id"] for row in flat_rows()]
    assert decoder.column(events, "ts") == [row["ts"] for row in flat_rows()]
    assert decoder.column(events, "features.vip") == [row["vip"] for row in flat_rows()]
    assert decoder.column(events, "features.score") == [row["score"] for row in flat_rows()]
    assert (batch.n_partitions, batch.ended, batch.done, batch.total) == (1, {0}, 60, 60)
    assert list(batch.offsets) == list(range(60))


def test_a_long_file_comes_in_batches_of_which_the_last_is_known(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    for n, sizes in ((2 * BATCH + 5, [BATCH, BATCH, 5]), (BATCH, [BATCH, 0]), (0, [0])):
        path.write_bytes(b"".join(b'{"id":"%d"}\n' % i for i in range(n)))
        found = list(file_batches(path, "inference"))
        assert [len(b.messages.values) for b in found] == sizes
        assert [b.ended for b in found] == [frozenset()] * (len(sizes) - 1) + [frozenset({0})]
        assert [o for b in found for o in b.offsets] == list(range(n))
        ids = [orjson.loads(v or b"")["id"] for b in found for v in b.messages.values]
        assert ids == [str(i) for i in range(n)]
        assert all(b.done <= b.total for b in found)
        assert (found[-1].done, found[-1].total) == (n, n)


def test_csv_has_no_types(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "id,model,n,f,flag,text,mixed,long,holes\n"
        "7,1,1,1.5,True,a,1,123456789012345678901234567890,\n"
        "8,1,-2,nan,false,,x,5,3\n"
        "9,1,3,1e3,,b,2,6,\n"
    )
    assert [orjson.loads(row) for row in file_rows(path)] == [
        {"id": "7", "model": "1", "features": {
            "n": 1, "f": 1.5, "flag": True, "text": "a", "mixed": "1",
            "long": 123456789012345678901234567890.0, "holes": None}},
        {"id": "8", "model": "1", "features": {
            "n": -2, "f": None, "flag": False, "text": None, "mixed": "x", "long": 5, "holes": 3}},
        {"id": "9", "model": "1", "features": {
            "n": 3, "f": 1000.0, "flag": None, "text": "b", "mixed": "2", "long": 6,
            "holes": None}},
    ]  # fmt: skip
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(DriftlineError, match="row 2 has another number of values than the 2 col"):
        list(file_rows(path))
    path.write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(DriftlineError, match="not a CSV file in UTF-8"):
        list(file_rows(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DriftlineError, match="there is no such file"):
        list(file_rows(tmp_path / "none.jsonl"))
    with pytest.raises(DriftlineError, match=r"one of \.jsonl, .*rename it"):
        list(file_rows(tmp_path / "rows.xlsx"))
    (tmp_path / "dir.jsonl").mkdir()
    with pytest.raises(DriftlineError, match="cannot be read"):
        list(file_rows(tmp_path / "dir.jsonl"))
    broken = tmp_path / "rows.parquet"
    broken.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DriftlineError, match="not a Parquet file"):
        list(file_rows(broken))
    packed = gzip.compress(b'{"id":"a"}\n' * 5000)
    for damage in (b"no gzip at all", packed[:40], packed[:20] + b"\0" * 9 + packed[29:]):
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(damage)
        with pytest.raises(DriftlineError, match="cannot be read"):
            list(file_rows(path))


# What `auto` keeps, and what is refused.


def with_features(**columns: Any) -> list[dict[str, Any]]:
    n = max(len(c) for c in columns.values())
    return [{"features": {k: c[i] for k, c in columns.items() if i < len(c)}} for i in range(n)]


def test_auto_keeps_what_can_be_monitored_and_says_why_not() -> None:
    fitted = fit_of(with_features(
        x=[float(i) for i in range(60)], flag=[i % 3 == 0 for i in range(60)],
        c=["a", "b", "c"] * 20, same=[5] * 60, none=[None] * 60,
        ident=[f"id-{i}" for i in range(60)], mixed=[1, "a"] * 30, lists=[[1]] * 60,
        late=[None] * 45 + [float(i) for i in range(15)], weird=[math.nan, math.inf] * 30,
    ))  # fmt: skip
    kept = {f.name: f.kind for f in fitted.reference.whole.features}
    assert kept == {"x": "numeric", "flag": "boolean", "c": "categorical", "same": "categorical"}
    reasons = {entry.name: entry.reason for _, entry in fitted.left_out}
    assert {unit for unit, _ in fitted.left_out} == {"fraud"}
    for name, reason in {
        "none": "every value is missing",
        "ident": "an identifier or free text", "mixed": "mixed types (int, str)",
        "lists": "lists or objects", "late": "only 15 finite values; at least 20",
        "weird": "missing or not finite",
    }.items():  # fmt: skip
        assert reason in reasons.pop(name)
    assert reasons == {}


@pytest.mark.parametrize(("column", "kind", "says"), [
    ([None] * 60, "numeric", "all of its 60 values are missing or not finite"),
    ([None] * 60, "categorical", "all of its 60 values are missing"),
    ([*range(19), *[None] * 41], "numeric", "only 19 finite values; at least 20 are needed"),
    ([*range(17), "many", *range(42)], "numeric", "row 17 holds str 'many', not a number"),
    ([*range(17), True, *range(42)], "numeric", "row 17 holds bool 'True', not a number"),
    (["yes", "no"] * 30, "boolean", "a value is 'yes'"),
    ([str(i) for i in range(60)], "categorical", "60 categories; at most max_categories = 50"),
    (None, "numeric", "no such column"),
])  # fmt: skip
def test_a_feature_that_is_named_and_cannot_serve_is_an_error(
    column: list[Any] | None, kind: str, says: str
) -> None:
    columns = {"x": list(range(60))} | ({} if column is None else {"bad": column})
    with pytest.raises(ProfileError) as caught:
        fit_of(with_features(**columns), features={"x": "numeric", "bad": kind}, max_categories=50)
    assert "feature 'bad'" in caught.value.message
    assert says in caught.value.message
    assert "feature 'x'" not in caught.value.message


def test_no_rows_and_why() -> None:
    for events, says in (
        ([], "no reference rows for model 'fraud'"),
        ([b"{broken", b"[1]"], "2 messages were refused, the first: the value is not JSON"),
        ([{"model": "churn"}] * 3, "3 events are of other models than 'fraud'"),
        ([{"features": {}}] * 30, "have no feature that can be monitored"),
        ([{"features": {"x": None}}] * 30, "every value is missing"),
    ):
        with pytest.raises(ProfileError) as caught:
            fit_of(events)
        assert says in caught.value.message


def test_rows_that_are_none_are_counted_and_the_others_serve() -> None:
    good = [{"model": "fraud", "features": {"x": i}} for i in range(30)]
    values: list[bytes | None] = [python_json(e) for e in good]
    values += [None, b"", b"[]", b"\xff", b'{"features":[1]}', b'{"model":"churn"}',
               b'{"model":"fraud","features":{"x":NaN}}', b'{"features":{"x":1e999}}',
               b"[" * 100_000, b'{"features":{"x":31},"segment":{"country":["ES"]}}',
               b'{"features":{"x":31},"segment":"ES"}']  # fmt: skip
    rows = collect(model_of(segment_by=["country"]), values)
    assert (rows.n, rows.others, rows.refused) == (32, 1, 8)
    assert len(rows.reasons) == 5
    assert len(rows.columns["x"]) == len(rows.segments) == 32
    [x] = fit_rows(rows, {}).reference.whole.numeric
    assert (x.n, x.nan, x.pos_inf, x.missing) == (30, 1, 1, 0)


def test_a_column_that_comes_late_or_goes_is_missing_elsewhere() -> None:
    events = [{"features": {"x": i} if i < 40 else {"y": i % 7}} for i in range(80)]
    x, y = fit_of(events).reference.whole.numeric
    assert (x.name, x.n, x.missing) == ("x", 40, 40)
    assert (y.name, y.n, y.missing) == ("y", 40, 40)


def test_at_most_so_many_events() -> None:
    values = [python_json({"model": m, "features": {"x": i}}) for i in range(50)
              for m in ("churn", "fraud")]  # fmt: skip
    rows = collect(model_of(), iter(values), 20)
    assert (rows.n, rows.others) == (20, 20)
    assert rows.columns["x"] == list(range(20))
    with pytest.raises(DriftlineError, match="--events is 0"):
        collect(model_of(), values, 0)


def test_paths_of_the_configuration_are_followed() -> None:
    fields = {"features": "$.in", "features.deep": "$.a.b", "model": "$.m.name"}
    events = [
        {"m": {"name": "fraud"}, "in": {"x": i}, "a": {"b": i * 2} if i % 2 else None}
        for i in range(80)
    ]
    fitted = fit_of(events, input={"topic": "t", "fields": fields})
    deep, x = sorted(fitted.reference.whole.numeric, key=lambda f: f.name)
    assert (deep.name, deep.n, deep.missing, x.name, x.n) == ("deep", 40, 40, "x", 80)
    whole = [{"id": str(i), "ts": i, "x": i, "c": "ab"[i % 2], "segment": None} for i in range(60)]
    fitted = fit_of(whole, input={"topic": "t", "fields": {"features": "$", "id": "$.id"}})
    assert fitted.reference.whole.names == ("x", "c")
    wrong = collect(model_of(input={"topic": "t", "fields": fields}), [b'{"m":"fraud"}'])
    assert "$.m is not an object, so there is no $.m.name" in wrong.reasons[0]


# Segments, prediction and score.


def test_segments_have_profiles_of_their_own() -> None:
    rng = np.random.default_rng(2)
    events = [
        {"features": {"x": float(rng.normal()), "c": "ab"[int(rng.integers(2))]},
         "segment": {"country": ("ES", "FR", "IS", None)[int(i % 8 > 3) + int(i % 40 == 7) * 2]}}
        for i in range(400)
    ]  # fmt: skip
    fitted = fit_of(events, segment_by=["country"])
    units = fitted.reference.units
    assert set(units) == {"fraud", "fraud|country=ES", "fraud|country=FR"}
    assert units["fraud|country=ES"][0] == {"country": "ES"}
    rows = {key: profile.n_rows for key, (_, profile) in units.items()}
    assert rows["fraud"] == 400
    assert rows["fraud|country=ES"] == sum(e["segment"]["country"] == "ES" for e in events)
    expected = sorted(e["features"]["x"] for e in events if e["segment"]["country"] == "FR")
    assert units["fraud|country=FR"][1].numeric[0].values.tolist() == expected
    [small] = [entry for entry in fitted.left_out if entry[1].name == "(the whole segment)"]
    assert small[0] == "fraud|country="
    assert len({profile.id for _, profile in units.values()}) == 3


def test_a_feature_that_a_segment_lacks_is_left_out_there_only() -> None:
    events = [
        {"features": {"x": i, "y": i if i % 2 else None}, "version": i % 2} for i in range(100)
    ]
    fitted = fit_of(events, segment_by=["version"], features={"x": "numeric", "y": "numeric"})
    assert {k: p.names for k, (_, p) in fitted.reference.units.items()} == {
        "fraud": ("x", "y"), "fraud|version=0": ("x",), "fraud|version=1": ("x", "y"),
    }  # fmt: skip
    [(unit, entry)] = fitted.left_out
    assert (unit, entry.name) == ("fraud|version=0", "y")
    assert "missing" in entry.reason


def test_what_has_one_value_is_kept_and_said() -> None:
    """Everywhere, or in a segment; named in the configuration, or found."""
    events = [
        {"features": {"x": i, "y": i if i % 2 else 7, "z": 2.5 if i > 9 else None, "c": "a"},
         "version": i % 2}
        for i in range(100)
    ]  # fmt: skip
    named: dict[str, Any] = {"x": "numeric", "y": "numeric", "z": "numeric", "c": "categorical"}
    for features in (named, "auto"):
        fitted = fit_of(events, segment_by=["version"], features=features)
        assert fitted.left_out == []
        found = {(e["unit"], e["column"], e["value"]): e for e in constants(fitted.reference)}
        assert set(found) == {
            ("fraud", "z", "2.5"), ("fraud", "c", "a"), ("fraud|version=0", "y", "7"),
        }  # fmt: skip
        z = found["fraud", "z", "2.5"]
        assert (z["rows"], z["missing"]) == (90, 10)
        assert {column_kind(f) for f in fitted.reference.whole.counted} == {
            "numeric",
            "categorical",
        }


@pytest.mark.parametrize(("values", "configured", "kind"), [
    (["a", "b"] * 30, "auto", "categorical"), ([0, 1] * 30, "auto", "categorical"),
    ([0.0, 1.0] * 30, "auto", "categorical"), ([i / 7 for i in range(60)], "auto", "numeric"),
    (list(range(60)), "auto", "numeric"), ([True, False] * 30, "auto", "boolean"),
    ([0, 1] * 30, "numeric", "numeric"), (list(range(60)), "categorical", "categorical"),
    ([3] * 60, "auto", "categorical"), ([None] * 60, "auto", None), (["a", "b"] * 30, "off", None),
    ([[0.1, 0.9]] * 60, "auto", None),
])  # fmt: skip
def test_the_kind_of_the_prediction(values: list[Any], configured: str, kind: str | None) -> None:
    events = [{"features": {"x": i}, "prediction": v} for i, v in enumerate(values)]
    kinds = {f.name: f.kind for f in fit_of(events, prediction=configured).reference.whole.features}
    assert kinds == {"x": "numeric"} | ({} if kind is None else {"prediction": kind})


def test_the_score_is_a_number_also_where_it_has_few_values() -> None:
    events = [{"features": {"x": i}, "score": i % 2, "prediction": "ab"[i % 2]} for i in range(60)]
    kinds = {f.name: f.kind for f in fit_of(events).reference.whole.features}
    assert kinds == {"x": "numeric", "score": "numeric", "prediction": "categorical"}


@pytest.mark.parametrize("name", ["prediction", "score"])
def test_a_configured_prediction_must_be_there(name: str) -> None:
    with pytest.raises(ProfileError, match=f"`{name}: numeric` is configured, but no reference"):
        fit_of(with_features(x=list(range(60))), **{name: "numeric"})


# On disk.


def some_reference() -> profiles.Reference:
    events = [
        {"features": {"x": i % 37, "c": "abc"[i % 3]}, "segment": {"country": ("ES", "a|b")[i % 2]}}
        for i in range(200)
    ]
    fitted = fit_of(events, segment_by=["country"])
    return profiles.Reference("fraud", fitted.reference.units, {"file": "rows.jsonl", "rows": 200})


def test_the_id_is_the_content_wherever_and_whenever() -> None:
    ids = {k: p.id for k, (_, p) in some_reference().units.items()}
    assert ids == {k: p.id for k, (_, p) in some_reference().units.items()}
    assert len(set(ids.values())) == 3
    # One value, one category or the kind more makes another profile.
    rows = with_features(x=[float(i) for i in range(60)], c=["a", "b", "c"] * 20)
    base = fit_of(rows).reference.whole.id
    changes = [{"x": 60.5}, {"c": "d"}, {"c": None}, {"x": None}, {"x": math.nan}]
    others = [
        fit_of([*rows[:-1], {"features": rows[-1]["features"] | change}]).reference.whole.id
        for change in changes
    ]
    assert len({base, *others}) == 6
    assert fit_of([rows[-1], *rows[:-1]]).reference.whole.id == base


@pytest.mark.parametrize("place", ["path", "memory", "file"])
def test_saved_and_loaded(tmp_path: Path, place: str) -> None:
    url = {
        "path": str(tmp_path / "deep" / "reference"), "memory": "memory://refs/fraud",
        "file": f"file://{tmp_path}/by-url",
    }[place]  # fmt: skip
    reference = some_reference()
    for _ in range(2):  # the second replaces the first
        profiles.save(reference, url)
    loaded = profiles.load(url, "fraud")
    assert loaded.model == "fraud"
    assert loaded.source == {"file": "rows.jsonl", "rows": 200}
    assert {k: (s, p.id) for k, (s, p) in loaded.units.items()} == {
        k: (s, p.id) for k, (s, p) in reference.units.items()
    }
    assert loaded.whole.numeric[0].values.tolist() == list(range(37))
    assert loaded.whole.categorical[0].categories == ("a", "b", "c")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ProfileError, match="cannot write the reference to"):
        profiles.save(some_reference(), str(tmp_path / "file" / "reference"))
    with pytest.raises(ProfileError, match="cannot write the reference to 'nowhere://x'"):
        profiles.save(some_reference(), "nowhere://x")
    with pytest.raises(ProfileError, match="cannot read the reference profile at 'nowhere://x'"):
        profiles.load("nowhere://x", "fraud")


def test_nothing_there_and_another_model(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no reference profile at .*driftline fit"):
        profiles.load(str(tmp_path / "none"), "fraud")
    profiles.save(some_reference(), str(tmp_path / "r"))
    with pytest.raises(ProfileError, match="fitted for model 'fraud', not 'churn'"):
        profiles.load(str(tmp_path / "r"), "churn")
    (tmp_path / "r" / "profile.safetensors").unlink()
    with pytest.raises(ProfileError, match="no reference profile"):
        profiles.load(str(tmp_path / "r"), "fraud")


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Or changes nothing that is read: the source, which is for people, and blanks."""
    profiles.save(some_reference(), str(tmp_path / "r"))
    rng = np.random.default_rng(3)
    noticed = 0
    for name in ("profile.json", "profile.safetensors"):
        path = tmp_path / "r" / name
        whole = path.read_bytes()
        for _ in range(250):
            raw = bytearray(whole)
            raw[int(rng.integers(0, len(raw)))] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(bytes(raw))
            try:
                loaded = profiles.load(str(tmp_path / "r"), "fraud")
            except ProfileError:
                noticed += 1
            else:
                expected = some_reference()
                assert {k: (s, p.id) for k, (s, p) in loaded.units.items()} == {
                    k: (s, p.id) for k, (s, p) in expected.units.items()
                }
        path.write_bytes(whole)
    assert noticed > 350
    profiles.load(str(tmp_path / "r"), "fraud")


@pytest.mark.parametrize("change", [
    lambda d: [d], lambda d: d | {"format": 2}, lambda d: {"format": 1},
    lambda d: d | {"units": None}, lambda d: d | {"units": [7]},
    lambda d: d | {"units": d["units"][1:]}, lambda d: d | {"units": []},
    lambda d: d | {"units": [u | {"segment": {"country": "FR"}} for u in d["units"]]},
    lambda d: d | {"units": [u | {"key": "fraud"} for u in d["units"]]},
    lambda d: d | {"units": [u | {"segment": None} for u in d["units"]]},
    lambda d: d | {"units": [u | {"n_rows": u["n_rows"] + 1} for u in d["units"]]},
    lambda d: d | {"units": [u | {"id": "0" * 32} for u in d["units"]]},
    lambda d: d | {"units": [u | {"features": u["features"][:1]} for u in d["units"]]},
    lambda d: d | {"units": [{k: v for k, v in u.items() if k != "id"} for u in d["units"]]},
])  # fmt: skip
def test_a_changed_document_is_a_profile_error(tmp_path: Path, change: Any) -> None:
    profiles.save(some_reference(), str(tmp_path / "r"))
    path = tmp_path / "r" / "profile.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ProfileError, match="fit it again|driftline fit"):
        profiles.load(str(tmp_path / "r"), "fraud")


@pytest.mark.parametrize(("before", "now"), [([], ["country"]), (["country"], [])])
def test_segments_asked_for_since_the_fit_are_not_passed_over(
    tmp_path: Path, before: list[str], now: list[str]
) -> None:
    """Also where every segment had too few rows to leave a profile."""
    one_each = [{"features": {"x": i}, "segment": {"country": f"c{i}"}} for i in range(40)]
    fitted = fit_of(one_each, segment_by=before).reference
    assert list(fitted.units) == ["fraud"]
    profiles.save(fitted, str(tmp_path / "reference"))
    with pytest.raises(ProfileError, match=r"fitted by segments of .*`segment_by` is \["):
        references(config_of(tmp_path, segment_by=now))
    assert references(config_of(tmp_path, segment_by=before))["fraud"].segment_by == tuple(before)


def test_a_reference_must_suit_the_configuration(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    profiles.save(some_reference(), str(tmp_path / "reference"))
    with pytest.raises(ProfileError, match="fitted by segments.*segment_by.*fit it again"):
        references(config)
    both = config_of(tmp_path, segment_by=["country"], features={"x": "numeric", "y": "numeric"})
    with pytest.raises(ProfileError, match="has no feature y, which `features` names"):
        references(both)
    found = references(config_of(tmp_path, segment_by=["country"]))
    assert found["fraud"].whole.id == some_reference().whole.id
    remote = config_of(
        tmp_path, BASE.replace("./reference", "memory://a/b"), segment_by=["country"]
    )
    profiles.save(some_reference(), remote.models["fraud"].reference)
    assert references(remote)["fraud"].whole.id == some_reference().whole.id
    with fsspec.open("memory://a/b/profile.json") as file:
        assert json.load(file)["model"] == "fraud"
    with pytest.raises(ConfigError):
        config_of(tmp_path, features={"x": "tensor"})
