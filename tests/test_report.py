"""The page of a report: what it says is what the replay found, whatever the names, in one file."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from rich.console import Console
from typer.testing import CliRunner

from driftline.detectors import fit
from driftline.stream.cli import app
from driftline.stream.config.document import Config
from driftline.stream.pages.figures import figure_html
from driftline.stream.pages.page import Section, choices, page, table
from driftline.stream.profiles import Reference
from driftline.stream.replay import Replay
from driftline.stream.report import words
from driftline.stream.report.bins import bins_of, quantiles
from driftline.stream.report.episodes import MOST, Episodes
from driftline.stream.report.figures import over_time
from driftline.stream.report.findings import Findings
from driftline.stream.report.record import SLICES, Record, Slices
from driftline.stream.report.render import render
from tests.stream_helpers import (
    MINUTE,
    T0,
    Log,
    always,
    batches,
    config_of,
    in_turn,
    python_json,
    reference_of,
)

HOSTILE = "<script>alert('f')</script>"
BOLD = "'><img src=x onerror=alert(1)>&{{ 7*7 }}%{x}"
FEATURES = {"x": "numeric", "k": "numeric", HOSTILE: "categorical", BOLD: "boolean"}
CONFIG = f"""
kafka: {{bootstrap.servers: localhost:9092}}
model: fraud
input: {{topic: inference}}
reference: ./reference
pane: 1m
windows: [5m, 200 events]
features: {json.dumps(FEATURES)}
detectors: {{numeric: [ks, missing_rate], categorical: [chi_squared]}}
segment_by: [country]
allowed_lateness: 10s
min_events: 20
"""
VOID = {"meta", "br", "input", "img", "link", "hr"}


@dataclass
class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and text by its element."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: dict[str, list[str]] = field(default_factory=dict)
    stack: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.stack:
            self.text.setdefault(self.stack[-1], []).append(data)

    @staticmethod
    def of(text: str) -> Page:
        parsed = Page()
        parsed.feed(text)
        parsed.close()
        assert parsed.stack == []
        return parsed

    def figures(self) -> list[dict[str, Any]]:
        return [json.loads(t) for t in self.text.get("script", []) if t.startswith('{"data"')]


def events(rng: np.random.Generator, n: int, drift: bool) -> list[dict[str, Any]]:
    """An event a second or so; with drift, the second half has moved."""
    rows = []
    for i in range(n):
        late = drift and i >= n // 2
        values: dict[str, Any] = {
            "x": float(rng.normal(1.5 if late else 0.0)),
            "k": int(rng.poisson(3)),
            HOSTILE: str(rng.choice(["a", "</script>", "<b>c</b>"], p=[0.6, 0.3, 0.1])),
            BOLD: bool(rng.random() < 0.4),
        }
        if late and i % 4 == 0:
            values[HOSTILE] = "<img src=http://evil.example/x>"
        if late and i % 5 == 0:
            values["x"] = None
        rows.append(
            {
                "id": str(i),
                "ts": T0 + i * 1000,
                "model": "fraud",
                "features": values,
                "segment": {"country": "ES" if i % 3 else "<i>PT</i>"},
            }
        )
    return rows


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, Reference], Log]:
    config = config_of(tmp_path_factory.mktemp("report"), CONFIG)
    before = events(np.random.default_rng(1), 1500, drift=False)
    reference = reference_of(config, before)
    stream = [python_json(e) for e in events(np.random.default_rng(2), 2400, drift=True)]
    return config, {"fraud": reference}, Log([[*stream]])


def recorded(
    scene: tuple[Config, dict[str, Reference], Log], size: int = 500
) -> tuple[Record, Findings, Replay]:
    config, references, log = scene
    work = Replay(config, references)
    record, findings = Record(config, references), Findings()
    work.monitor.on_pane = record.pane
    for verdict in work.run(batches(log, in_turn(log), always(size))):
        record.verdict(verdict.key, findings.add(verdict))
    return record, findings, work


@pytest.fixture(scope="module")
def found(scene: tuple[Config, dict[str, Reference], Log]) -> tuple[Record, Findings, Replay]:
    return recorded(scene)


@pytest.fixture(scope="module")
def html(found: tuple[Record, Findings, Replay]) -> str:
    return render(*found, asked="events.jsonl")


def test_every_feature_has_its_row_and_what_drifted_says_so(html: str) -> None:
    parsed = Page.of(html)
    assert set(FEATURES) <= set(parsed.text["h3"])
    rows = [a for tag, a in parsed.elements if tag == "article"]
    assert len(rows) == len(FEATURES)
    drawings = [a for tag, a in parsed.elements if tag == "svg"]
    assert len(drawings) == len(FEATURES)
    assert all("reference: " in str(a["aria-label"]) for a in drawings)
    chips = [a["class"] for tag, a in parsed.elements if tag == "span" and "chip" in str(a)]
    assert "chip critical" in chips
    assert "chip quiet" in chips
    # Two windows have a heatmap each, and every feature a figure.
    assert len(parsed.figures()) == 2 + len(FEATURES)


def test_sentences_and_figures_are_the_verdicts(
    html: str, found: tuple[Record, Findings, Replay]
) -> None:
    record, findings, work = found
    text = " ".join(t for tag in ("p", "dd", "td", "b") for t in Page.of(html).text[tag])
    assert f"{findings.n:,}: {findings.n_drifted:,} of drift" in text
    assert "2,400 in, 2,400 summarised, 0 late, 0 dead-lettered" in text
    assert work.counts.balanced
    x = [e for e in record.episodes.found() if e.feature == "x" and e.unit == "fraud"]
    assert x
    assert x[0].severity == "critical"
    assert "x rose by 1." in text
    # A quarter of the values became a category that the reference never had.
    assert "new categories" in text
    assert "<img src=http://evil.example/x> (" in text
    new = [v for k, v in findings.series.items() if k[:3] == ("fraud", HOSTILE, "chi_squared")]
    assert all(v["drifted"] for v in new)


def test_hostile_names_stay_text(html: str) -> None:
    parsed = Page.of(html)
    scripts = [a for tag, a in parsed.elements if tag == "script"]
    data = [a for a in scripts if a.get("type") == "application/json"]
    assert len(data) == len(parsed.figures())
    assert len(scripts) == len(data) + 2  # plotly, and what draws
    assert not [tag for tag, _ in parsed.elements if tag == "img"]
    assert not [a for _, a in parsed.elements if any(name.startswith("on") for name in a)]
    # A figure takes `<` in a label for markup, so it gets none.
    labels = [
        str(label)
        for figure in parsed.figures()
        for label in figure["layout"].get("yaxis", {}).get("ticktext", [])
    ]
    assert any("&lt;script" in label for label in labels)
    assert not any("<" in label for label in labels)


def test_nothing_is_loaded_from_anywhere(html: str) -> None:
    parsed = Page.of(html)
    for tag, attributes in parsed.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        assert "src" not in attributes, (tag, attributes)
        assert str(attributes.get("href", "#")).startswith("#")
        assert "url(" not in str(attributes.get("style", ""))
    styles = "".join(parsed.text["style"])
    assert "url(" not in styles
    assert "@import" not in styles
    [policy] = [a["content"] for t, a in parsed.elements if t == "meta" and "http-equiv" in a]
    assert str(policy).startswith("default-src 'none'")
    # Without scripts, the drawings, sentences and tables are there all the same.
    assert html.index("<article") < html.rindex("<script>")


def test_same_events_same_bytes_however_they_are_read(
    scene: tuple[Config, dict[str, Reference], Log], html: str
) -> None:
    assert render(*recorded(scene, size=77), asked="events.jsonl") == html


def test_the_page_stays_small_beside_its_script(html: str) -> None:
    from plotly.offline import get_plotlyjs

    assert len(html) - len(get_plotlyjs()) < 200_000


def test_commands_write_the_page(
    scene: tuple[Config, dict[str, Reference], Log], tmp_path: Path
) -> None:
    from driftline.stream.profiles import save

    config, references, log = scene
    save(references["fraud"], config.models["fraud"].reference)
    source = tmp_path / "events.jsonl"
    source.write_bytes(b"".join(bytes(v or b"") + b"\n" for v in log.partitions[0]))
    common = ["--config", str(config.path), "--input", str(source)]
    one, two = tmp_path / "one.html", tmp_path / "two.html"
    done = CliRunner().invoke(app, ["replay", *common, "--report", str(one)])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["report", *common, "--out", str(two)]).exit_code == 0
    assert one.read_bytes() == two.read_bytes()
    refused = CliRunner().invoke(app, ["report", *common, "--since", "2026-11-21"])
    assert refused.exit_code == 2
    assert "a file is read whole" in " ".join(refused.output.split())


def test_bins_count_what_numpy_counts_on_the_values(
    scene: tuple[Config, dict[str, Reference], Log], found: tuple[Record, Findings, Replay]
) -> None:
    rows = [orjson.loads(v or b"")["features"] for v in scene[2].partitions[0]]
    unit = found[0].units["fraud"]
    names = unit.profile.names
    bins, counts = unit.bins.features[names.index("x")], unit.counts(unit.total, names.index("x"))
    assert bins.edges is not None
    x = np.array([r["x"] for r in rows if r["x"] is not None])
    # The largest reference value closes the last bin but one; values equal to it are in the stream
    # with probability 0.
    assert counts[: bins.n_main].tolist() == np.histogram(x, bins.edges)[0].tolist()
    assert dict(zip(bins.labels, counts.tolist(), strict=True))["missing"] == 240
    assert unit.mean(unit.total, names.index("x")) == pytest.approx(x.mean(), abs=1e-5)
    k, of_k = names.index("k"), unit.bins.features[names.index("k")]
    assert of_k.values is not None
    told = dict(zip(of_k.labels, unit.counts(unit.total, k).tolist(), strict=True))
    assert told["3"] == sum(r["k"] == 3 for r in rows)
    c = names.index(HOSTILE)
    told = dict(zip(unit.bins.features[c].labels, unit.counts(unit.total, c).tolist(), strict=True))
    assert told["new"] == 300
    assert told["</script>"] == sum(r[HOSTILE] == "</script>" for r in rows)
    assert sum(told.values()) == len(rows)


@pytest.mark.parametrize("kind", ["normal", "lognormal", "rounded", "ties"])
def test_quantiles_from_bins_lie_within_a_bin_of_the_true_ones(kind: str) -> None:
    rng = np.random.default_rng(5)
    draw = {
        "normal": lambda n: rng.normal(size=n),
        "lognormal": lambda n: rng.lognormal(0, 2, n),
        "rounded": lambda n: np.round(rng.normal(size=n), 1),
        "ties": lambda n: np.where(rng.random(n) < 0.9, 0.0, rng.normal(size=n)),
    }[kind]
    profile, _ = fit({"x": draw(4000)})
    f = profile.numeric[0]
    bins = bins_of(f)
    assert int(bins.reference.sum()) == f.n
    assert bins.edges is not None
    assert 8 <= bins.n_main <= 40
    # No bin but that of one common value holds most of the reference.
    assert kind == "ties" or bins.reference.max() <= 0.4 * f.n
    x = draw(3000) + 0.5
    counts = np.histogram(x, bins.edges)[0]
    counts = np.concatenate([counts, np.zeros(bins.n - bins.n_main, int)])
    for share in (0.1, 0.5, 0.9):
        [q] = quantiles(bins, counts, [share], float(x.min()), float(x.max()))
        true = float(np.quantile(x, share, method="inverted_cdf"))
        k = int(np.searchsorted(bins.edges, true, side="right")) - 1
        assert q is not None
        assert np.clip(bins.edges[k], x.min(), None) - 1e-9 <= q
        assert q <= np.clip(bins.edges[min(k + 1, bins.n_main)], None, x.max()) + 1e-9


def test_categories_beyond_those_kept_are_one() -> None:
    values = [f"c{i}" for i in range(200) for _ in range(201 - i)]
    profile, _ = fit({"c": values})
    bins = bins_of(profile.categorical[0])
    assert bins.labels[0] == "c0"
    assert bins.labels[60:] == ("140 rarer ones", "new", "missing")
    assert bins.reference.sum() == len(values)
    assert bins.reference[60] == sum(int(v[1:]) >= 60 for v in values)


def test_a_longer_range_has_longer_slices_and_loses_nothing(
    scene: tuple[Config, dict[str, Reference], Log], found: tuple[Record, Findings, Replay]
) -> None:
    config, references, _ = scene
    record = Record(config, references)
    base = found[0].units["fraud"]
    from driftline.detectors.panes import Pane

    n = 5000
    for i in range(n):
        record.pane(
            "fraud",
            Pane(
                T0 + i * MINUTE, 3,
                np.array([0, 4], np.int32), np.array([1, 2], np.int32),
                np.ones((base.profile.n_numeric, 3), np.int64),
                np.full(base.profile.n_numeric, float(i)),
                np.full(base.profile.n_numeric, float(i + 1)),
            ),
        )  # fmt: skip
        record.verdict("fraud", verdict(i, drifted=i % 7 == 0))
    unit = record.units["fraud"]
    assert record.slices.n <= SLICES
    assert record.slices.length_ms == 32 * MINUTE
    assert sum(part.counts.sum() for part in unit.by_slice.values()) == 3 * n
    assert sum(part.sums.sum() for part in unit.by_slice.values()) == unit.total.sums.sum()
    first = unit.by_slice[T0 // (32 * MINUTE)]
    assert (first.low[0], first.high[0]) == (0.0, 32.0)
    [series] = unit.series.values()
    assert sum(look.n for look in series.looks.values()) == n
    assert sum(look.drifted for look in series.looks.values()) == len(range(0, n, 7))
    # Of the looks of a slice, the one with the smallest p.
    assert min(look.p or 1 for look in series.looks.values()) == 1e-9


def test_slices_know_both_ends() -> None:
    slices = Slices(1000)
    assert slices.number(5_000_500) == 5000
    assert slices.number(4_999_999) == 4999
    assert slices.n == 2
    assert slices.number(5_400_000) == 5_400_000 // slices.length_ms
    assert slices.length_ms == 2000


def verdict(minute: int, *, drifted: bool, **other: Any) -> dict[str, Any]:
    from driftline.schemas.units import iso_ms

    end = T0 + (minute + 1) * MINUTE
    effect = {"kind": "mean_shift", "value": 0.2 + minute % 11, "unit": "sd",
              "reference": 0.0, "window": 1.0}  # fmt: skip
    return {
        "id": f"{minute:032d}", "model": "fraud", "version": None, "segment": {}, "feature": "x",
        "detector": "ks", "reference": {"id": "0" * 32, "n": 10},
        "window": {"size": "1m", "start": iso_ms(end - MINUTE), "end": iso_ms(end), "n": 3},
        "statistic": 0.5, "p_value": 1e-9 if drifted else 0.5, "alpha": 1e-5, "drifted": drifted,
        "status": "ok", "effect": effect, "since": None, "detail": {}, **other,
    }  # fmt: skip


def test_only_the_strongest_alarms_are_kept_and_all_are_counted() -> None:
    episodes = Episodes(resolve_after=1)
    n = 3 * MOST
    for i in range(2 * n):
        episodes.add("fraud", verdict(i, drifted=i % 2 == 0))
    kept = episodes.found()
    assert len(kept) == MOST
    assert episodes.number == {("fraud", "x"): n}
    sizes = sorted((0.2 + i % 11 for i in range(0, 2 * n, 2)), reverse=True)
    assert min(e.strongest["effect"]["value"] for e in kept) == sizes[MOST - 1]
    assert all(e.ends_at is not None for e in kept)


def test_an_onset_is_told_where_a_verdict_has_one() -> None:
    episodes = Episodes(resolve_after=2)
    episodes.add("fraud", verdict(0, drifted=True))
    [episode] = episodes.found()
    assert words.onset(episode) == ""
    episodes.add("fraud", verdict(10, drifted=True, since="2023-11-14T00:03:00.000Z"))
    episodes.add("fraud", verdict(5, drifted=True, since="2023-11-14T00:04:00.000Z"))
    [episode] = episodes.found()
    assert words.onset(episode) == "It began about 2023-11-14 00:03 UTC."
    assert words.drifted(verdict(10, drifted=True, since="2023-11-14T00:03:00.000Z")).startswith(
        "x rose by 10.2 sd"
    )


def test_a_test_with_a_threshold_is_drawn_by_its_statistic(
    scene: tuple[Config, dict[str, Reference], Log],
) -> None:
    config, references, _ = scene
    record = Record(config, references)
    for i in range(20):
        made = verdict(i, drifted=i > 15, detector="online_mmd", p_value=None, threshold=0.4)
        del made["alpha"]
        record.verdict("fraud", {**made, "statistic": i / 20})
    unit = record.units["fraud"]
    from driftline.stream.report.figures import Clock

    made = over_time(unit, Clock(record.slices), "x", None, ["1m"], [])
    assert made is not None
    [trace] = made[0]["data"]
    assert trace["y"] == [i / 20 for i in range(20)]
    levels = [s for s in made[0]["layout"]["shapes"] if s["type"] == "line"]
    assert [s["y0"] for s in levels] == [0.4]
    [band] = [s for s in made[0]["layout"]["shapes"] if s["type"] == "rect"]
    assert (band["x0"], band["x1"]) == ("2023-11-15T00:16:00.000", "2023-11-15T00:20:00.000")


def test_a_range_without_events_has_a_page(scene: tuple[Config, dict[str, Reference], Log]) -> None:
    config, references, _ = scene
    text = render(Record(config, references), Findings(), Replay(config, references), "nothing")
    assert "No events." in text
    assert "No alarm" in text
    assert Page.of(text).figures() == []


def test_parts_of_a_page_escape_what_they_are_given() -> None:
    figure = {"data": [{"name": "</script><script>"}], "layout": {"template": {"big": 1}}}
    drawn = figure_html(figure, label='"><b>', caption="<i>")
    assert Page.of(drawn).figures() == [{"data": figure["data"], "layout": {}}]
    shown = table(["<th>"], [["<td>"]], caption="<c>") + choices("n", {"<l>": drawn, "m": ""})
    text = page("<t>", "<s>", [("<n>", "<v>"), ("none", "")], [Section("<h>", "<p>", shown)])
    parsed = Page.of(text)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"t", "s", "n", "v", "b", "i", "c", "l"}
    assert parsed.text["h1"] == ["<t>"]
    assert "none" not in parsed.text["dt"]


def test_a_page_without_figures_has_no_scripts() -> None:
    text = page("t", "s", [], [Section("h", "", "<p>x</p>")])
    assert "<script" not in text
    assert len(text) < 20_000


def test_what_each_reference_sees_is_told_and_drawn_for_itself(tmp_path: Path) -> None:
    """
    x          ▁▁▁▁▁▁▁▁▅▅▅▅▅▅▅▅        the change lasts
    reference          ════════ drift
    lately             ═══             until it is what the window is compared with
    """
    against = ["reference", {"sliding": "5m", "name": "<lately>"}]
    features = {"x": "numeric", "k": "numeric"}
    text = CONFIG.replace(json.dumps(FEATURES), json.dumps(features))
    config = config_of(tmp_path, text, against=against, segment_by=[], windows=["3m"])
    reference = reference_of(config, events(np.random.default_rng(1), 1500, drift=False))
    stream = [python_json(e) for e in events(np.random.default_rng(2), 2400, drift=True)]
    record, findings, work = recorded((config, {"fraud": reference}, Log([stream])))
    ks = {part: record.units["fraud"].series["x", "ks", "3m", part] for part in ("", "<lately>")}
    drifted = {part: [at for at, k in s.looks.items() if k.drifted] for part, s in ks.items()}
    assert max(drifted["<lately>"]) < max(drifted[""]) == max(ks[""].looks)
    shown = render(record, findings, work, asked="events.jsonl")
    parsed = Page.of(shown)
    said = " ".join(t for tag in ("p", "dd", "td") for t in parsed.text[tag])
    assert "reference, <lately>" in said
    assert "KS against <lately> in windows of 3m (" in said
    assert {"Against reference", "Against <lately>"} < set(parsed.text["h3"])
    # Two heatmaps; then a panel for each reference, whose curves and title name it.
    [fitted, lately, x, _] = parsed.figures()
    assert fitted["data"][0]["z"] != lately["data"][0]["z"]
    titles = [axis["title"]["text"] for name, axis in x["layout"].items() if "yaxis" in name]
    assert {"−log₁₀ p", "−log₁₀ p<br>&lt;lately&gt;"} < set(titles)
    names = {trace["name"] for trace in x["data"]}
    assert {"KS 3m", "KS 3m against &lt;lately&gt;"} < names
    # For a program and in the terminal, too.
    rows = [s for s in findings.as_dict(work)["series"] if s["feature"] == "x"]
    assert [s.get("reference") for s in rows if s["detector"] == "ks"] == [None, "<lately>"]
    console = Console(record=True, width=200, file=io.StringIO())
    findings.show(console, work, None)
    assert "compared with" in (told := console.export_text())
    assert sum("<lately>" in line for line in told.splitlines()) == 4
