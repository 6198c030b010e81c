"""What commands say in a terminal is what they mean: nothing is taken for a style, nothing cut off."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from driftline.schemas.errors import DriftlineError
from driftline.stream.cli import app, main

CONFIG = """
kafka: {bootstrap.servers: localhost:9092}
model: fraud
input: {topic: inference}
reference: ./reference
windows: [10m]
segment_by: [tier, country]
detectors: {numeric: [ks, shiryaev_roberts], multivariate: [shiryaev_roberts]}
against: [reference, {sliding: 10m, name: "lately [/bold]"}]
"""


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("against: []", "write for example [reference, {sliding: 7d}]"),
        ("detectors: ks", "write for example {numeric: [ks]}"),
        ('features: {"a[/red]": nummeric}', "features.a[/red]: "),
    ],
)
def test_an_error_is_printed_as_it_is(
    key: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "driftline.yaml"
    kept = [line for line in CONFIG.splitlines() if not line.startswith(key[:7])]
    path.write_text("\n".join([*kept, key, ""]))
    monkeypatch.setattr(sys, "argv", ["driftline", "replay", "--config", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    flat = " ".join(capsys.readouterr().err.split())
    assert flat.startswith("error: ")
    assert said in flat


def test_the_findings_of_a_replay_name_everything_in_full(tmp_path: Path) -> None:
    path, events = tmp_path / "driftline.yaml", tmp_path / "[red]events.jsonl"
    path.write_text(CONFIG)
    lines = [
        orjson.dumps({
            "ts": f"2026-11-02T{8 + i // 60:02}:{i % 60:02}:00Z",
            "id": str(i),
            "features": {"amount [/b]": i * 7919 % 101, "age": i * 31 % 97},
            "segment": {"country": "ES", "tier": "[x]"},
        })
        for i in range(300)
        for _ in range(5)
    ]  # fmt: skip
    events.write_bytes(b"\n".join(lines))
    for words in (["fit"], ["replay", "--out", str(tmp_path / "[red]verdicts.jsonl")]):
        done = CliRunner().invoke(app, [*words, "--config", str(path), "--input", str(events)])
        assert done.exit_code == 0, done.output
    table = [line.split() for line in done.output.splitlines()]
    unit = "fraud|country=ES|tier=[x]"
    assert ["unit", "feature", "detector", "window", "compared", "with"] in [t[:6] for t in table]
    starts = {" ".join(line[:6]) for line in table}
    assert {
        f"{unit} amount [/b] ks 10m reference",
        f"{unit} amount [/b] ks 10m lately",
    } <= starts
    assert f"{unit} (multivariate) shiryaev_roberts 10m reference" in {
        " ".join(line[:5]) for line in table
    }
    assert "written to" in done.output
    assert "[red]verdicts.jsonl" in "".join(done.output.split())


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--overlap", "an hour", "--overlap is 'an hour'"), ("--from", "later", "--from: 'later'")],
)
def test_a_wrong_option_of_promote_is_named_with_its_value(
    option: str, value: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "driftline.yaml"
    path.write_text(CONFIG)
    words = ["reference", "promote", "./new", "--config", str(path), option, value]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


@pytest.mark.parametrize("option", ["--out", "--report"])
@pytest.mark.parametrize(
    ("place", "said"), [("none/there", "there is no directory"), (".", "it is a")]
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(
    option: str, place: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "driftline.yaml"
    path.write_text(CONFIG)
    words = ["replay", "--config", str(path), "--input", "nothing.jsonl", option]
    done = CliRunner().invoke(app, [*words, str(tmp_path / place)])
    assert isinstance(done.exception, DriftlineError)
    assert str(done.exception).startswith(f"cannot write {tmp_path / place}: {said}")
