"""A detector of another package: found by its entry point, named in driftline.yaml, in verdicts.

`plugin_example/` is the package's code. What an installer would write beside it, the metadata with
the entry points, is written here, so that nothing needs to be installed.
"""

from __future__ import annotations

import importlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from driftline.detectors import detectors
from driftline.schemas.errors import ConfigError
from driftline.stream.config.document import load

HERE = Path(__file__).parent
EXAMPLE = HERE / "plugin_example"
T0_MS = 1_700_006_400_000

CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
pane: 1m
windows: [2m]
features: {x: numeric}
detectors: {numeric: [ks, outside_range]}
min_events: 2
"""


def metadata(directory: Path, entry_points: str, name: str = "driftline-example") -> Path:
    """What an installer leaves of a distribution: a folder to be put on the path."""
    home = directory / name
    info = home / f"{name.replace('-', '_')}-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[driftline.detectors]\n{entry_points}\n")
    return home


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Detectors are looked for once per process: forget them before, and after, too."""
    detectors.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    importlib.invalidate_caches()
    sys.modules.pop("outside_range", None)
    detectors.cache_clear()


@pytest.fixture
def installed(afresh: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    home = metadata(tmp_path, "range = outside_range:OutsideRange")
    afresh.syspath_prepend(str(EXAMPLE))
    afresh.syspath_prepend(str(home))
    return home


def test_detector_of_another_package_is_found(installed: Path) -> None:
    found = detectors()
    assert {"ks", "chi_squared", "missing_rate", "outside_range"} <= set(found)
    assert type(found["outside_range"]).__module__ == "outside_range"


def test_without_the_package_there_is_no_such_detector(
    afresh: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "outside_range" not in detectors()
    path = tmp_path / "driftline.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ConfigError, match="outside_range"):
        load(path)


def test_configuration_may_name_it(installed: Path, tmp_path: Path) -> None:
    path = tmp_path / "driftline.yaml"
    path.write_text(CONFIG)
    model = load(path).models["fraud"]
    assert model.detectors_for("numeric") == ("ks", "outside_range")
    # It tests numbers only, and the configuration is held to that.
    path.write_text(CONFIG.replace("{numeric: [ks, ", "{categorical: ["))
    with pytest.raises(ConfigError, match="outside_range"):
        load(path)


@pytest.mark.parametrize(
    ("entry_points", "error", "message"),
    [
        (
            "dict = builtins:dict",
            TypeError,
            "entry point 'dict' (builtins:dict) is not a detector: it needs `name`, `kinds` and "
            "`test(profile, windows, features)`; see driftline.detectors.Detector",
        ),
        (
            "one = outside_range:OutsideRange\ntwo = outside_range:OutsideRange",
            ValueError,
            "entry point 'two' (outside_range:OutsideRange): a detector called 'outside_range' is "
            "there already (outside_range); rename one",
        ),
        (
            "ks = driftline.detectors.ks:KolmogorovSmirnov",
            ValueError,
            "entry point 'ks' (driftline.detectors.ks:KolmogorovSmirnov): a detector called 'ks' is "
            "there already (driftline.detectors.ks); rename one",
        ),
    ],
    ids=["no detector", "one name twice", "the name of a builtin"],
)
def test_entry_point_that_cannot_serve_is_an_error_that_names_it(
    afresh: pytest.MonkeyPatch,
    tmp_path: Path,
    entry_points: str,
    error: type[Exception],
    message: str,
) -> None:
    afresh.syspath_prepend(str(EXAMPLE))
    afresh.syspath_prepend(str(metadata(tmp_path, entry_points)))
    with pytest.raises(error) as caught:
        detectors()
    assert str(caught.value) == message


def run(installed: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(EXAMPLE), str(installed)])
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_contract_tests_take_it_up_by_themselves(tmp_path: Path) -> None:
    """In a process of its own, in which the package is installed."""
    home = metadata(tmp_path, "range = outside_range:OutsideRange")
    tests = str(HERE / "test_detectors_contract.py")
    done = run(
        home, "-m", "pytest", tests, "-q", "-k", "test_detector and outside_range",
        "-p", "no:cacheprovider", "-W", "error", cwd=HERE.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 14


def test_command_line_writes_its_verdicts(tmp_path: Path) -> None:
    """`driftline fit` and `driftline replay` on files, the package installed for both."""
    home = metadata(tmp_path, "range = outside_range:OutsideRange")
    (tmp_path / "driftline.yaml").write_text(CONFIG)

    def events(name: str, values: list[float]) -> str:
        lines = [
            orjson.dumps({
                "id": f"{name}{i}", "ts": T0_MS + i * 1000, "model": "fraud", "features": {"x": v},
            })
            for i, v in enumerate(values)
        ]  # fmt: skip
        (tmp_path / name).write_bytes(b"\n".join(lines) + b"\n")
        return name

    reference = events("reference.jsonl", [(i * 37 % 100) / 10 for i in range(400)])
    # Two minutes like the reference, then one in which a third lies above all of it.
    stream = events(
        "stream.jsonl",
        [(i * 37 % 100) / 10 + (12 if i >= 120 and i % 3 == 0 else 0) for i in range(300)],
    )
    start = ("-c", "from driftline.stream.cli import main; main()")
    fitted = run(home, *start, "fit", "--input", reference, cwd=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    replayed = run(home, *start, "replay", "--input", stream, "--out", "out.jsonl", cwd=tmp_path)
    assert replayed.returncode in (0, 3), replayed.stderr
    verdicts = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    its = [v for v in verdicts if v["detector"] == "outside_range"]
    assert {v["detector"] for v in verdicts} == {"ks", "outside_range"}
    quiet = [
        v for v in its if v["status"] == "ok" and v["window"]["end"] <= "2023-11-15T00:02:00.000Z"
    ]
    moved = [
        v for v in its if v["status"] == "ok" and v["window"]["end"] > "2023-11-15T00:02:00.000Z"
    ]
    assert quiet
    assert not any(v["drifted"] for v in quiet)
    assert moved
    assert all(v["drifted"] and v["statistic"] > 0.1 for v in moved)
    assert moved[0]["effect"]["category"] == "(outside the range)"


@pytest.mark.parametrize(("n_reference", "n_test"), [(2, 3), (3, 3), (5, 2), (4, 4)])
def test_example_has_the_exact_law(installed: Path, n_reference: int, n_test: int) -> None:
    """Against all orderings of the two samples: the example is a real test, not a decoration."""
    p_value = importlib.import_module("outside_range").p_value
    n = n_reference + n_test
    counts = [0] * (n_test + 1)
    for places in itertools.combinations(range(n), n_reference):
        counts[places[0] + n - 1 - places[-1]] += 1
    for outside in range(n_test + 1):
        expected = sum(counts[outside:]) / sum(counts)
        assert p_value(outside, n_test, n_reference) == pytest.approx(expected, rel=1e-12)
