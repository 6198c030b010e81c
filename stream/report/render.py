"""The page of a report: what was recorded, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from ...schemas.units import iso_ms
from ...schemas.verdict import unit_key
from ..alert import wording
from ..config.against import FITTED
from ..pages.figures import figure_html
from ..pages.page import Section, choices, html, page, table
from ..replay import Replay
from . import words
from .distribution import Sample, drawing, legend
from .episodes import Episode, strongest
from .figures import MOST_ROWS, Clock, against, found_by, heat_rows, heatmap, over_time
from .findings import Findings
from .record import Record, UnitRecord

MOST_GROUPS: Final = 30
"""Features told of under "What happened"."""
MOST_OTHERS: Final = 50
"""Further alarms of a feature, in its table."""
MOST_FIGURES: Final = 100
MOST_FEATURES: Final = 400
"""Rows of features of a model; the first `MOST_FIGURES` have a figure over time."""
ROWS_SHOWN: Final = 40
MOST_TABLE: Final = 1000
"""Rows of the table of verdicts, of which the first `ROWS_SHOWN` are seen at once."""

Feature = tuple[str, str]


def render(record: Record, findings: Findings, work: Replay, asked: str) -> str:
    """The whole page. asked: which events were replayed, in words.

    Raises:
        DriftlineError: jinja2 or plotly is not installed.
    """
    return _Report(record, findings, work, asked).page()


class _Report:
    def __init__(self, record: Record, findings: Findings, work: Replay, asked: str) -> None:
        self.record, self.findings, self.work, self.asked = record, findings, work, asked
        self.clock = Clock(record.slices)
        self.episodes = record.episodes.found()
        self.end = "" if record.last_ms is None else iso_ms(record.last_ms)
        self.of: dict[Feature, list[Episode]] = {}
        for episode in strongest(self.episodes):
            self.of.setdefault((episode.unit, episode.feature), []).append(episode)
        self.notes: list[str] = []

    def page(self) -> str:
        config = self.record.config
        several = len(config.models) > 1
        sections = [self.happened()]
        for name in config.models:
            unit = self.record.units.get(unit_key(name, {}))
            if unit is None:
                continue
            of = f" of {name}" if several else ""
            features = self._features(unit_key(name, {}), unit)
            sections += [
                self.effects(f"Effect over time{of}", name, unit, features),
                self.features(f"Features{of}", name, unit, features),
            ]
        if (segments := self.segments()) is not None:
            sections.append(segments)
        sections += [self.verdicts(), self.about()]
        names = ", ".join(config.models)
        return page(
            f"Drift report: {names}",
            self._range(),
            self.facts(),
            sections,
            style=files(__name__.rpartition(".")[0]).joinpath("report.css").read_text("utf-8"),
        )

    # --- parts --------------------------------------------------------------------------------

    def facts(self) -> list[tuple[str, str]]:
        counts, config = self.work.counts, self.record.config
        n_alarms = sum(self.record.episodes.number.values())
        critical = sum(e.severity == "critical" for e in self.episodes)
        lost = f"; {counts.ignored:,} of other models" if counts.ignored else ""
        dropped = self.work.monitor.dropped_events
        lost += f"; {dropped:,} after idle partitions" if dropped else ""
        insufficient = sum(self.findings.insufficient.values())
        facts = [
            ("Asked for", self.asked),
            (
                "Events",
                f"{counts.received:,} in, {counts.summarised:,} summarised, {counts.late:,} late, "
                f"{counts.dead_lettered:,} dead-lettered{lost}",
            ),
            (
                "Verdicts",
                f"{self.findings.n:,}: {self.findings.n_drifted:,} of drift, {insufficient:,} "
                "not testable",
            ),
            ("Alarms", f"{n_alarms:,}" + (f", {critical:,} critical" if critical else "")),
        ]
        events = {key: unit.events for key, unit in self.record.units.items()}
        for name, model in config.models.items():
            of = f" of {name}" if len(config.models) > 1 else ""
            reference = self.record.reference(name)
            whole = reference.whole
            source = words.source(reference)
            facts += [
                (
                    f"Reference{of}",
                    f"{whole.n_rows:,} events, id {whole.id[:12]}"
                    + (f", from {source}" if source else "")
                    + words.since(reference),
                ),
                (
                    f"Windows{of}",
                    ", ".join(w.label for w in model.windows)
                    + f"; panes of {words.format_duration(model.pane_ms)}",
                ),
            ]
            if model.against is not None:
                compared = [part.name for part in model.against.parts]
                compared[:0] = [FITTED] if model.against.fitted else []
                facts.append((f"Compared with{of}", ", ".join(compared)))
            facts += [
                (f"{fact}{of}", value)
                for fact, value in words.level_facts(model, reference, events)
            ]
        return facts

    def happened(self) -> Section:
        n = sum(self.record.episodes.number.values())
        n_looks = self.findings.n - sum(self.findings.insufficient.values())
        lead = words.happened(self.episodes, n, n_looks, self.end)
        notes = []
        if len(self.of) > MOST_GROUPS:
            notes.append(
                f"The {MOST_GROUPS} features of the largest effects are told of here; "
                f"{len(self.of) - MOST_GROUPS:,} more had alarms, see the tables."
            )
        if n > len(self.episodes):
            self.notes.append(
                f"Of {n:,} alarms the {len(self.episodes):,} strongest are described."
            )
        notes += words.reasons(self.findings.insufficient)
        groups = [self._group(key, own) for key, own in list(self.of.items())[:MOST_GROUPS]]
        return Section(
            "What happened", lead, html(_template("happened.html.j2"), groups=groups, notes=notes)
        )

    def _group(self, key: Feature, own: Sequence[Episode]) -> dict[str, Any]:
        top, n = own[0], self.record.episodes.number[key]
        _, feature = key
        segment = ", ".join(f"{k} = {v}" for k, v in top.first["segment"].items())
        others = sorted(own, key=lambda e: e.starts_at) if len(own) > 1 else []
        rows = [
            (
                wording.moment(e.starts_at),
                "still firing" if e.ends_at is None else wording.moment(e.ends_at),
                words.lasted(e.starts_at, e.ends_at or max(self.end, e.starts_at)),
                e.severity,
                words.change(e.strongest),
                ", ".join(sorted({found_by(d, part) for d, _, part in e.tests})),
                "" if e.since is None else wording.moment(e.since),
            )
            for e in others[:MOST_OTHERS]
        ]
        header = ("from", "to", "length", "severity", "largest change", "found by", "onset")
        if not any(row[-1] for row in rows):
            header, rows = header[:-1], [row[:-1] for row in rows]
        more = n - len(rows)
        return {
            "name": f"{feature} ({segment})" if segment else feature,
            "state": top.severity,
            "said": f"{words.plural(n, 'alarm')}, {top.severity}",
            "when": ("the strongest " if n > 1 else "") + words.when(top, self.end),
            "sentence": words.drifted(top.strongest),
            "onset": words.onset(top) if not top.strongest["since"] else "",
            "tests": words.tests(top),
            "summary": f"All {n:,} alarms" if more <= 0 else f"{len(rows)} of {n:,} alarms",
            "others": table(header, rows, caption=f"Alarms of {feature}") if rows else "",
        }

    def effects(self, title: str, model: str, unit: UnitRecord, features: Sequence[str]) -> Section:
        if len(features) > MOST_ROWS:
            self.notes.append(
                f"The heatmaps of {model} show {MOST_ROWS} of its {len(features)} features, those "
                "of the largest effects."
            )
        against = self.record.config.models[model].against
        parts = ["", *([] if against is None else [part.name for part in against.parts])]
        content = ""
        for k, part in enumerate(parts):
            maps = self._heatmaps(model, unit, features, part)
            if maps and against is not None:
                content += html("<h3>Against {{ name }}</h3>", name=part or FITTED)
            content += choices(f"window-{_anchor(model)}-{k}", maps) if maps else ""
        scale = html(
            _template("scale.html.j2"),
            low="fell by 1 sd, or a share by 25 points",
            high="rose as much",
        )
        lead = (
            "How far each window lay from the reference. The mean of a numeric feature in reference "
            "standard deviations; of a categorical one the share of the category that moved most. "
            "Full colour is what makes an alarm critical. A line through a cell: the test found "
            "drift; colour without a line is a change that its window is too small to prove."
        )
        return Section(title, lead, scale + content if content else "<p>Nothing was tested.</p>")

    def _heatmaps(
        self, model: str, unit: UnitRecord, features: Sequence[str], part: str
    ) -> dict[str, str]:
        """Window size → its map, of what is compared with a part of the stream."""
        maps: dict[str, str] = {}
        for window in self.record.config.models[model].windows:
            rows = heat_rows(unit, features[:MOST_ROWS], window.label, part)
            if rows:
                figure, height = heatmap(self.clock, rows)
                label = (
                    f"Heatmap of effects, windows of {window.label}{against(part)}: {len(rows)} "
                    f"rows by {self.clock.n} slices of time; the numbers are in the tables below"
                )
                maps[window.label] = figure_html(figure, label=label, height_px=height)
        return maps

    def features(
        self, title: str, model: str, unit: UnitRecord, features: Sequence[str]
    ) -> Section:
        key = unit_key(model, {})
        sizes = [w.label for w in self.record.config.models[model].windows]
        rows = [
            self._feature(key, unit, name, sizes, k)
            for k, name in enumerate(features[:MOST_FEATURES])
        ]
        if len(features) > MOST_FEATURES:
            self.notes.append(
                f"{MOST_FEATURES} of the {len(features)} features of {model} have a row; the others "
                "are in the table of verdicts only."
            )
        if len(features) > MOST_FIGURES:
            self.notes.append(
                f"The {MOST_FIGURES} features of {model} with the largest effects have a figure "
                "over time."
            )
        lead = (
            "The largest effects first. Left: the reference (grey) and the whole range (blue), with "
            "the window of the largest change (orange) where there was an alarm. Right: the feature "
            "itself with its reference (dotted), and −log₁₀ of each test’s p-value with its level "
            "(dotted): above the line is drift. Shaded: time in which a test found drift."
        )
        return Section(title, lead, "".join(rows))

    def _feature(
        self, key: str, unit: UnitRecord, name: str, sizes: Sequence[str], rank: int
    ) -> str:
        names = unit.profile.names
        index = names.index(name) if name in names else None
        own = self.of.get((key, name), [])
        tested = any(f == name for f, *_ in unit.series)
        n = self.record.episodes.number.get((key, name), 0)
        state = own[0].severity if own else "quiet" if tested else "untested"
        said = {"quiet": "no alarm", "untested": "not tested"}.get(
            state, f"{words.plural(n, 'alarm')}, {state}"
        )
        figure = ""
        if rank < MOST_FIGURES:
            onsets = sorted({e.since for e in own if e.since is not None})
            made = over_time(unit, self.clock, name, index, sizes, onsets)
            if made is not None:
                label = f"{name} over time, and what its tests said"
                figure = figure_html(made[0], label=label, height_px=made[1])
        picture = key_of_colours = ""
        if index is not None:
            samples = self._samples(unit, index, own)
            picture = drawing(name, unit.bins.features[index], samples)
            key_of_colours = legend(samples)
        return html(
            _template("feature.html.j2"),
            anchor=f"feature-{_anchor(key)}-{rank}",
            name=name,
            kind="" if index is None else unit.profile.features[index].kind,
            state=state,
            said=said,
            sentence=words.drifted(own[0].strongest) if own else "",
            drawing=picture,
            legend=key_of_colours,
            numbers=[] if index is None else words.numbers(unit, index),
            figure=figure,
        )

    def _samples(self, unit: UnitRecord, index: int, own: Sequence[Episode]) -> list[Sample]:
        bins = unit.bins.features[index]
        samples = [
            Sample("reference", "reference", bins.reference),
            Sample("whole range", "range", unit.counts(unit.total, index)),
        ]
        if own and unit.full:
            window = own[0].strongest["window"]
            bounds = (words.parse_time_ms(window[edge]) for edge in ("start", "end"))
            counts = unit.bins.of(unit.between(self.record.slices, *bounds), index)
            name = f"{window['size']} to {wording.moment(window['end'])}"
            samples.append(Sample(name, "episode", counts))
        return samples

    def segments(self) -> Section | None:
        """Segments have a row each: their distributions are not drawn."""
        series = self.findings.series
        wholes = {unit_key(name, {}) for name in self.record.config.models}
        units = [key for key in self.record.units if key not in wholes]
        if not units:
            return None
        alarms: dict[str, int] = {}
        for (unit, _), n in self.record.episodes.number.items():
            alarms[unit] = alarms.get(unit, 0) + n
        rows = []
        for key in sorted(units, key=lambda k: (-alarms.get(k, 0), k)):
            own = [(k, v) for k, v in series.items() if k[0] == key]
            top = next((e for e in strongest(self.episodes) if e.unit == key), None)
            rows.append(
                (
                    key,
                    f"{self.record.units[key].events:,}",
                    f"{sum(v['tests'] for _, v in own):,}",
                    f"{sum(v['drifted'] for _, v in own):,}",
                    f"{alarms.get(key, 0):,}",
                    "" if top is None else f"{top.feature}: {words.change(top.strongest)}",
                )
            )
        header = ("segment", "events", "tests", "drifted", "alarms", "largest change")
        lead = "Each segment is tested against the reference’s rows of its own."
        marked = [i for i, row in enumerate(rows) if row[4] != "0"]
        return Section(
            "Segments",
            lead,
            table(header, rows[:MOST_TABLE], numeric=(1, 2, 3, 4), marked=marked, caption=""),
        )

    def verdicts(self) -> Section:
        ranked = sorted(self.findings.series.items(), key=lambda kv: (-kv[1]["drifted"], kv[0]))
        rows = [
            (
                *(unit, feature, found_by(detector, part), window),
                f"{e['drifted']:,}",
                f"{e['tests']:,}",
                "" if e["p"] is None else wording.small(e["p"], 2),
                "" if e["first"] is None else wording.moment(e["first"]),
                "" if e["last"] is None else wording.moment(e["last"]),
            )
            for (unit, feature, detector, window, part), e in ranked[:MOST_TABLE]
        ]
        header = (
            *("unit", "feature", "detector", "window", "drifted", "tests", "smallest p"),
            *("first drift", "last drift"),
        )

        def part(some: Sequence[tuple[str, ...]]) -> str:
            marked = [i for i, row in enumerate(some) if row[4] != "0"]
            return table(header, some, numeric=(4, 5, 6), marked=marked, caption="Verdicts")

        content = part(rows[:ROWS_SHOWN]) if rows else "<p>No test could be made.</p>"
        if len(rows) > ROWS_SHOWN:
            content += html(
                "<details><summary>{{ n }} more</summary>{{ rest|safe }}</details>",
                n=len(rows) - ROWS_SHOWN,
                rest=part(rows[ROWS_SHOWN:]),
            )
        if len(ranked) > MOST_TABLE:
            self.notes.append(
                f"The table of verdicts has {MOST_TABLE:,} of {len(ranked):,} rows; "
                "`driftline replay --json` has all."
            )
        lead = "Every test that was made: how often it found drift, and its smallest p-value."
        return Section("Verdicts", lead, content)

    def about(self) -> Section:
        length = words.format_duration(self.record.slices.length_ms)
        notes = [
            f"Time is drawn in {words.plural(self.clock.n, 'slice')} of {length}. Of several looks "
            "of a test in one slice, the one with the smallest p-value is drawn.",
            "An alarm is what the alert stage would have sent: it begins with the first verdict of "
            "drift of a feature and ends when each of its tests that had drifted was quiet "
            f"{words.plural(self.record.config.alerts.resolve_after, 'time')} in a row.",
            "Bins are runs of reference values, so their counts are exact; quantiles over time are "
            "interpolated inside them. The window of the largest change is drawn in whole slices.",
            *self.notes,
        ]
        if any(model.against is not None for model in self.record.config.models.values()):
            notes.append(
                "A feature's distribution and its values over time are drawn beside the fitted "
                "reference, also where windows are compared with an earlier part of the stream."
            )
        if any(not unit.full for unit in self.record.units.values()):
            notes.append("Segments are counted and told of, not drawn.")
        return Section(
            "About this page",
            "",
            html("<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>", notes=notes),
        )

    # --- small helpers ------------------------------------------------------------------------

    def _range(self) -> str:
        if self.record.first_ms is None:
            return "No events."
        first = wording.moment(iso_ms(self.record.first_ms))
        length = words.lasted(iso_ms(self.record.first_ms), self.end)
        return f"Event time {first} to {wording.moment(self.end)} ({length})"

    def _features(self, key: str, unit: UnitRecord) -> list[str]:
        """All features: those with the strongest alarms first, then by their largest effect."""
        names = [*unit.profile.names]
        names += sorted({f for f, *_ in unit.series} - set(names))
        order = {feature: i for i, (u, feature) in enumerate(self.of) if u == key}
        largest: Mapping[str, float] = {
            name: max(
                (
                    abs(look.strength)
                    for (f, *_), s in unit.series.items()
                    if f == name
                    for look in s.looks.values()
                ),
                default=0.0,
            )
            for name in names
        }
        return sorted(names, key=lambda n: (order.get(n, len(order)), -largest[n], n))


def _anchor(text: str) -> str:
    """A name as part of an id: other characters than letters and digits become `-`."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def _template(name: str) -> str:
    return files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")
