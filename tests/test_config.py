"""driftline.yaml: what is read, what is refused, and what a refusal says.

`config/good` holds files that load, `config/bad` one file per mistake; its first lines are the
messages expected (`# expect: `, without the file's name; a message may end in `…`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.schemas.errors import ABSENT, ConfigError, Problem
from driftline.schemas.units import (
    MAX_DURATION_MS,
    MAX_TIME_MS,
    MIN_TIME_MS,
    EventWindow,
    TimeWindow,
    format_duration,
    iso_ms,
    parse_bytes,
    parse_duration_ms,
    parse_time_ms,
    parse_window,
)
from driftline.stream.config.document import (
    FIELDS,
    MODEL_KEYS,
    SHARED_KEYS,
    Config,
    check_kafka_properties,
    format_path,
    load,
    parse_path,
)
from driftline.stream.config.kafka import CONSUMER_ONLY, PRODUCER_ONLY, RESERVED, SECRET

HERE = Path(__file__).parent / "config"
DETECTORS = {
    "ks": {"numeric"},
    "missing_rate": {"numeric", "categorical"},
    "chi_squared": {"categorical"},
    "shiryaev_roberts": {"numeric", "categorical", "multivariate"},
}
SMALLEST = (HERE / "good" / "smallest.yaml").read_text()


def write(directory: Path, text: str) -> Path:
    path = directory / "driftline.yaml"
    path.write_text(text)
    return path


def problems_of(path: Path, **options: Any) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(path, detectors=DETECTORS, **options)
    return caught.value.problems


# Good files


def test_every_default(tmp_path: Path) -> None:
    """The smallest file says five things; everything else is what the documentation promises."""
    path = write(tmp_path, SMALLEST)
    config = load(path)
    assert config.path == path
    assert config.client_properties() == {"bootstrap.servers": "localhost:9092"}
    assert config.group == "driftline"
    assert config.topics.model_dump() == {
        "prefix": "driftline",
        "partitions": 4,
        "replication_factor": 1,
        "panes": "driftline.panes",
        "drift": "driftline.drift",
        "alerts": "driftline.alerts",
        "dead_letters": "driftline.dead-letters",
        "state": "driftline.state",
    }
    assert config.ingest.model_dump() == {"batch_events": 50_000, "commit_interval_ms": 250}
    assert config.alerts.model_dump() == {"resolve_after": 1, "group_by": "model"}
    assert list(config.models) == ["fraud"]
    assert config.models["fraud"].model_dump() == {
        "name": "fraud",
        "input": {
            "topic": "inference",
            "format": "json",
            "fields": None,
            "max_message_bytes": 1_048_576,
            "max_ahead_ms": 3_600_000,
            "missing_time": "dead_letter",
        },
        "reference": str(tmp_path / "reference"),
        "pane_ms": 60_000,
        "allowed_lateness_ms": 10_000,
        "idle_after_ms": 30_000,
        "retention_ms": 7 * 86_400_000,
        "against": None,
        "windows": ({"size_ms": 300_000, "hop_ms": None, "label": "5m"},),
        "segment_by": (),
        "features": "auto",
        "groups": {},
        "prediction": "auto",
        "score": "auto",
        "detectors": {
            "numeric": ("ks", "missing_rate"),
            "categorical": ("chi_squared",),
            "multivariate": (),
        },
        "alpha": 0.01,
        "false_alarms": None,
        "min_events": 30,
        "slots": "exact",
        "max_categories": 1000,
    }


EARLY = ("shiryaev_roberts",)


@pytest.mark.parametrize(
    ("said", "numeric", "categorical", "multivariate"),
    [
        ("", ("ks", *EARLY, "missing_rate"), ("chi_squared", *EARLY), EARLY),
        ("numeric: [ks]", ("ks",), ("chi_squared", *EARLY), ()),
        ("categorical: [fisher]", ("ks", *EARLY, "missing_rate"), ("fisher",), EARLY),
        ("multivariate: []", ("ks", *EARLY, "missing_rate"), ("chi_squared", *EARLY), ()),
    ],
)
def test_a_budget_has_the_detectors_that_tell_soonest(
    tmp_path: Path,
    said: str,
    numeric: tuple[str, ...],
    categorical: tuple[str, ...],
    multivariate: tuple[str, ...],
) -> None:
    text = SMALLEST + "false_alarms: 1 per 30d\n" + (f"detectors: {{{said}}}\n" if said else "")
    model = load(write(tmp_path, text)).models["fraud"]
    assert model.detectors == {
        "numeric": numeric, "categorical": categorical, "multivariate": multivariate,
    }  # fmt: skip


def test_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_PASSWORD", "hunter2")
    config = load(HERE / "good" / "everything.yaml", detectors=DETECTORS)
    assert config.kafka.client_properties() == {
        "bootstrap.servers": "broker-1:9092, broker-2:9092,[::1]:9092",
        "client.id": "monitor",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "driftline",
        "sasl.password": "hunter2",
        "linger.ms": 7,
        "fetch.min.bytes": 1000,
        "socket.keepalive.enable": True,
    }
    assert config.group == "watch"
    assert config.topics.names == {
        "panes": "ml.monitor.panes",
        "drift": "ml.verdicts",
        "alerts": "ml.monitor.alerts",
        "dead_letters": "ml.monitor.dead-letters",
        "state": "ml.monitor.state",
    }
    assert (config.topics.partitions, config.topics.replication_factor) == (8, 3)
    assert (config.ingest.batch_events, config.ingest.commit_interval_ms) == (10_000, 1000)
    assert config.alerts.resolve_after == 3
    model = config.models["fraud"]
    assert model.input.fields == {
        "id": ("request", "uuid"),
        "ts": ("meta", "event.time"),
        "features": (),
        "features.amount": ("payment", "amount"),
        "segment.country": ("geo", "country"),
    }
    assert (model.input.max_message_bytes, model.input.max_ahead_ms) == (256 * 1024, 300_000)
    assert model.reference == "s3://models/fraud/reference"
    assert (model.pane_ms, model.allowed_lateness_ms, model.idle_after_ms) == (
        30_000,
        90_000,
        120_000,
    )
    assert model.retention_ms == 30 * 86_400_000
    assert model.windows == (
        TimeWindow(300_000, None, "5m"),
        TimeWindow(3_600_000, 3_600_000, "1h hop 1h"),
        TimeWindow(86_400_000, 1_800_000, "1d hop 30m"),
        EventWindow(2000, "2000 events"),
    )
    assert model.segment_by == ("country", "version")
    assert model.features == {
        "amount": "numeric",
        "merchant": "categorical",
        "vip": "boolean",
        "no": "categorical",
        "1": "numeric",
    }
    assert (model.prediction, model.score) == ("categorical", "off")
    assert model.detectors_for("numeric") == ("ks",)
    assert model.detectors_for("boolean") == ("chi_squared", "missing_rate")
    assert (model.alpha, model.min_events, model.slots, model.max_categories) == (
        0.001,
        100,
        1000,
        200,
    )


def test_top_level_keys_are_the_defaults_of_every_model() -> None:
    models = load(HERE / "good" / "two_models.yaml", detectors=DETECTORS).models
    fraud, churn = models["fraud"], models["churn"]
    assert (fraud.input.topic, fraud.input.max_ahead_ms) == ("inference", 600_000)
    assert (churn.input.topic, churn.input.max_ahead_ms) == ("churn-events", 600_000)
    assert [w.label for w in fraud.windows] == ["5m", "1h"]
    assert [w.label for w in churn.windows] == ["1d"]
    assert (fraud.reference, churn.reference) == (str(HERE / "good" / "fraud"), "/srv/churn")
    assert (fraud.alpha, churn.alpha) == (0.05, 0.05)
    assert churn.detectors == {
        "numeric": ("ks",),
        "categorical": ("missing_rate",),
        "multivariate": (),
    }


def test_yaml_means_what_it_says() -> None:
    config = load(HERE / "good" / "yaml_surprises.yaml", detectors=DETECTORS)
    assert config.client_properties()["client.id"] == 10
    assert config.group == "2026-11-21"
    fraud, churn = config.models["fraud"], config.models["churn"]
    assert fraud.prediction == "off"
    assert fraud.reference == str(HERE / "good" / "no")
    assert fraud.segment_by == ("no", "on")
    assert fraud.features == {"yes": "numeric", "null": "boolean", "1:30": "categorical"}
    assert (fraud.alpha, churn.alpha) == (0.02, 0.03)
    assert churn.windows == fraud.windows


def test_single_model_at_the_top_and_below_models_is_the_same(tmp_path: Path) -> None:
    flat = load(write(tmp_path, SMALLEST))
    rest = SMALLEST.split("model: fraud\n")[1]
    nested = SMALLEST.split("model: fraud\n")[0] + "models:\n  fraud:\n"
    nested += "".join(f"    {line}\n" for line in rest.splitlines())
    assert load(write(tmp_path, nested)) == flat


@pytest.mark.parametrize("value", [False, "off"])
def test_off_is_off_also_as_the_boolean_yaml_1_1_makes_of_it(value: object) -> None:
    path = HERE / "good" / "smallest.yaml"
    model = load(path, overrides={"prediction": value, "score": value}).models["fraud"]
    assert (model.prediction, model.score) == ("off", "off")


def test_overrides_win_and_leave_the_rest(tmp_path: Path) -> None:
    config = load(
        write(tmp_path, SMALLEST),
        overrides={"kafka": {"bootstrap.servers": "other:1"}, "alpha": 0.5, "topics": {}},
    )
    assert config.client_properties() == {"bootstrap.servers": "other:1"}
    assert config.models["fraud"].alpha == 0.5
    assert config.models["fraud"].input.topic == "inference"


def test_a_mistake_in_an_override_is_not_blamed_on_a_line() -> None:
    path = HERE / "good" / "smallest.yaml"
    [problem] = problems_of(path, overrides={"windows": ["5m", "90s"]})
    assert (problem.path, problem.line, problem.value) == ("windows[1]", None, "90s")
    assert problem.remedy.endswith("(the value comes from an override, not from the file)")
    [problem] = problems_of(path, overrides={"input": {"max_ahead": 5}})
    assert (problem.path, problem.line) == ("input.max_ahead", None)


def test_loads_with_the_detectors_that_are_installed(tmp_path: Path) -> None:
    config = load(write(tmp_path, SMALLEST + "detectors: {numeric: [ks]}\n"))
    assert config.models["fraud"].detectors["numeric"] == ("ks",)


# Bad files

BAD = sorted((HERE / "bad").glob("*.yaml"))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_mistake_is_named_with_its_line_path_value_rule_and_remedy(path: Path) -> None:
    text = path.read_text()
    expected = re.findall(r"^# expect: (.*)$", text, re.MULTILINE)
    assert expected, f"{path} lacks its first line"
    with pytest.raises(ConfigError) as caught:
        load(path, detectors=DETECTORS)
    problems = caught.value.problems
    assert str(caught.value).splitlines() == [str(problem) for problem in problems]
    for problem, expect in zip(problems, expected, strict=True):
        message = str(problem)
        separator = ": " if problem.line is None else ":"
        assert message.startswith(f"{path}{separator}")
        message = message.removeprefix(f"{path}{separator}").strip()
        if expect.endswith("…"):
            assert message.startswith(expect[:-1])
        else:
            assert message == expect
        assert problem.rule
        assert problem.remedy
        assert problem.file == str(path)
        if problem.line is not None:
            # The line holds the last key of the path, or the item the path counts, or its parent.
            assert 1 <= problem.line <= text.count("\n") + 1
    assert "hunter" not in str(caught.value)


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
kafka: {bootstrap.servers: localhost:9092, sasl.pasword: x, group.id: y}
model: fr|aud
topics: {partitions: 0, replication_factor: 0}
input: {topic: "a b", format: avro, fields: {id: uuid, ts: 7}}
pane: 1:30
windows: [5 minutes, 1h, 60m, {size: 1h, hop: 2h}]
features: {amount: number, score: numeric, note: {kind: text, share: 2}}
detectors: {numeric: [kss], categorical: [ks]}
alpha: 2
colour: red
""",
    )
    found = [(p.line, p.path) for p in problems_of(path)]
    assert found == [
        (1, "kafka.group.id"),
        (1, "reference"),
        (2, "model"),
        (3, "topics.partitions"),
        (3, "topics.replication_factor"),
        (4, "input.topic"),
        (4, "input.format"),
        (4, "input.fields.id"),
        (4, "input.fields.ts"),
        (5, "pane"),
        (6, "windows[0]"),
        (6, "windows[2]"),
        (6, "windows[3]"),
        (7, "features.amount"),
        (7, "features.score"),
        (7, "features.note.share"),
        (8, "detectors.numeric[0]"),
        (8, "detectors.categorical[0]"),
        (9, "alpha"),
        (10, "colour"),
    ]


def test_librdkafka_reports_every_wrong_property_by_its_own_name() -> None:
    found = check_kafka_properties(
        {
            "bootstrap.servers": "localhost:1",
            "linger.ms": -7,
            "security.protocol": "TLS",
            "no.such": 1,
            "fetch.min.bytes": 5,
            "compression.type": "zstd",
        }
    )
    assert {name for name, _ in found} == {"linger.ms", "security.protocol", "no.such"}
    assert all(message for _, message in found)


def test_properties_that_only_fit_together_are_not_tried_alone() -> None:
    """session.timeout.ms above the default max.poll.interval.ms is right where both are raised."""
    both = {"session.timeout.ms": 600_000, "max.poll.interval.ms": 700_000}
    assert check_kafka_properties(both) == []
    [(name, message)] = check_kafka_properties({"session.timeout.ms": 600_000})
    assert "max.poll.interval.ms" in message
    assert name in ("", "session.timeout.ms")


def test_the_check_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    check_kafka_properties({"linger.ms": 5, "fetch.min.bytes": 5, "api.version.request": True})
    check_kafka_properties({"security.protocol": "SSL", "ssl.ca.location": "/no/such/file"})
    assert capfd.readouterr() == ("", "")


def test_each_role_gets_only_its_own_properties(tmp_path: Path) -> None:
    text = SMALLEST.replace("kafka: {", "kafka: {linger.ms: 5, fetch.min.bytes: 9, client.id: me, ")
    config = load(write(tmp_path, text))
    assert set(config.client_properties("consumer")) == {
        "bootstrap.servers",
        "client.id",
        "fetch.min.bytes",
    }
    producer = {"bootstrap.servers", "client.id", "linger.ms"}
    assert set(config.client_properties("producer")) == producer
    assert set(config.client_properties("admin")) == producer
    assert not CONSUMER_ONLY & PRODUCER_ONLY
    assert not (CONSUMER_ONLY | PRODUCER_ONLY) & set(RESERVED)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    [problem] = problems_of(tmp_path / "driftline.yaml")
    assert (problem.line, problem.rule) == (None, "the file does not exist")
    assert "driftline init" in problem.remedy
    [problem] = problems_of(tmp_path)
    assert problem.rule.startswith("the file cannot be read: ")
    empty = tmp_path / "empty.yaml"
    empty.touch()
    [problem] = problems_of(empty)
    assert problem.rule == "the file is empty"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"model: fraud\ngroup: caf\xe9\n")
    [problem] = problems_of(binary)
    assert (problem.line, problem.rule) == (2, "the file is not UTF-8")
    control = tmp_path / "control.yaml"
    control.write_bytes(b"model: fraud\n\ngroup: \x07\n")
    [problem] = problems_of(control)
    assert (problem.line, problem.rule) == (3, "the file holds a control character")


def test_aliases_cannot_blow_up(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    [problem] = problems_of(write(tmp_path, "\n".join(lines)))
    assert "aliases" in problem.rule
    [problem] = problems_of(write(tmp_path, "a: " + "[" * 5000))
    assert "nested too deeply" in problem.rule


KEYS = (
    st.sampled_from([*MODEL_KEYS, *SHARED_KEYS, *FIELDS, "model", "models", "fraud", "features.x"])
    | st.sampled_from(["bootstrap.servers", "sasl.password", "topic", "format", "fields", "size"])
    | st.sampled_from(["hop", "numeric", "categorical", "kind", "name", "path", "false_alarms"])
    | st.sampled_from(["max_ahead", "max_message_bytes", "prefix", "panes", "batch_events"])
    | st.sampled_from(["partitions", "commit_interval", "resolve_after", "segment.x", "drift"])
    | st.text(max_size=3)
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["5m", "1h", "ks", "numeric", "auto", "x", "$.x", "$", "2000 events", "a:1"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@settings(deadline=None)  # a file is written and read, and librdkafka asked
@given(st.dictionaries(KEYS, VALUES, max_size=8), st.booleans())
def test_whatever_stands_in_the_file_the_answer_is_a_list_of_problems(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], complete: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    if complete:
        document = {**yaml.safe_load(SMALLEST), **document}
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    problems: list[Problem] | None = None
    try:
        config = load(path, detectors=DETECTORS)
    except ConfigError as error:
        problems = error.problems
    else:
        assert config.models
    if problems is not None:
        assert problems
        assert all(problem.rule and problem.remedy for problem in problems)
        assert all(problem.line for problem in problems if problem.path)


@given(st.text() | st.text(alphabet="ab:[]{}-\n \t'\"&*!|>#%@,?"))
def test_whatever_the_text_the_answer_is_a_list_of_problems(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ConfigError) as caught:
        load(path, detectors=DETECTORS)
    assert caught.value.problems


# Secrets


SECRETS = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_never_printed(name: str, tmp_path: Path) -> None:
    text = SMALLEST.replace("kafka: {", f"kafka: {{{name}: hunter2, ")
    config = load(write(tmp_path, text))
    assert config.client_properties()[name] == "hunter2"
    shown = [repr(config), str(config), repr(config.kafka), str(config.kafka)]
    shown += [str(config.model_dump()), config.model_dump_json(), repr(config.__dict__)]
    assert not [text for text in shown if "hunter2" in text]


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "alpha: 2",
        "kafka: {sasl.password: hunter2}",
        "sasl.password: hunter2",
        "topics: {sasl.password: hunter2}",
        "models: {fraud: {sasl.password: hunter2}}",
        'sasl.password: "hunter2',
        "sasl.password: *hunter2",
        "sasl.password: !hunter2!x y",
        "sasl.password: @hunter2",
        "sasl.password: hunter2: x",
        "sasl.password: &hunter2 &hunter2 x",
        "&hunter2 [a]: b",
        '"hunter2": "hunter\\2"',
        "[hunter2",
        "- hunter2",
    ],
)
@pytest.mark.parametrize("name", ["sasl.password", "sasl.pasword", "ssl.key.pem"])
def test_no_mistake_prints_a_secret(name: str, broken: str, tmp_path: Path) -> None:
    text = SMALLEST.replace("kafka: {", f"kafka: {{linger.ms: -1, {name}: hunter2, ")
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text + broken))
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.problems)
    # A traceback prints the causes too.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_wrong_value_from_the_environment_is_shown_as_the_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTOCOL", "hunter2")
    text = SMALLEST.replace("kafka: {", 'kafka: {security.protocol: "${PROTOCOL}", ')
    [problem] = problems_of(write(tmp_path, text))
    assert (problem.path, problem.value) == ("kafka.security.protocol", "${PROTOCOL}")
    assert "hunter2" not in str(problem)


def test_variables_are_filled_in_and_can_be_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", "broker")
    monkeypatch.setenv("PORT", "9093")
    text = SMALLEST.replace("localhost:9092}", '"${HOST}:${PORT}", client.id: "$${HOST} $5"}')
    assert load(write(tmp_path, text)).client_properties() == {
        "bootstrap.servers": "broker:9093",
        "client.id": "${HOST} $5",
    }


def test_properties_that_are_no_secrets_can_be_seen() -> None:
    visible = ["sasl.username", "sasl.mechanisms", "ssl.ca.location", "ssl.key.location"]
    visible += ["sasl.oauthbearer.assertion.private.key.file", "bootstrap.servers"]
    assert not [name for name in visible if SECRET.search(name)]


# Digest


def digest(directory: Path, text: str) -> str:
    return load(write(directory, text), detectors=DETECTORS).digest()


def test_digest_is_of_the_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = digest(tmp_path, SMALLEST)
    assert re.fullmatch(r"[0-9a-f]{64}", base)
    spelled = SMALLEST.replace("./reference", "reference").replace("[5m]", "\n  - 5m  # five")
    assert digest(tmp_path, spelled + "pane: 60s\nalpha: 0.010\ntopics:\n") == base
    (tmp_path / "elsewhere").mkdir()
    assert digest(tmp_path / "elsewhere", SMALLEST) == base
    monkeypatch.chdir(tmp_path)
    assert load("driftline.yaml", detectors=DETECTORS).digest() == base


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("5m", "300s"),  # the label is part of every verdict
        ("./reference", "./other"),
        ("topic: inference", "topic: inference, max_ahead: 2h"),
        ("model: fraud", "model: fraud\nalpha: 0.02"),
        ("model: fraud", "model: fraud\ntopics: {prefix: x}"),
        ("model: fraud", "model: fraud2"),
        ("localhost:9092", "localhost:9093"),
    ],
)
def test_digest_moves_with_the_meaning(old: str, new: str, tmp_path: Path) -> None:
    assert old in SMALLEST
    assert digest(tmp_path, SMALLEST.replace(old, new)) != digest(tmp_path, SMALLEST)


def test_digest_does_not_depend_on_secrets(tmp_path: Path) -> None:
    digests = {
        digest(tmp_path, SMALLEST.replace("kafka: {", f"kafka: {{sasl.password: {secret}, "))
        for secret in ("hunter2", "hunter3")
    }
    assert digests == {digest(tmp_path, SMALLEST)}


def test_a_config_is_frozen() -> None:
    config: Config = load(HERE / "good" / "smallest.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.models["fraud"].alpha = 0.5  # pyright: ignore[reportAttributeAccessIssue]


# Paths


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("$", ()),
        ("$.id", ("id",)),
        ("$.request.uuid", ("request", "uuid")),
        ('$.a["b.c"]', ("a", "b.c")),
        ('$["b c"].d', ("b c", "d")),
        ('$["quote \\" here"]', ('quote " here',)),
        ("$.größe", ("größe",)),
    ],
)
def test_a_path_is_the_keys_from_the_root(text: str, keys: tuple[str, ...]) -> None:
    assert parse_path(text) == keys
    assert parse_path(format_path(keys)) == keys


@given(st.lists(st.text(), max_size=4))
def test_any_keys_can_be_written_as_a_path(keys: list[str]) -> None:
    assert parse_path(format_path(tuple(keys))) == tuple(keys)


# Units


@given(st.integers(0, MAX_DURATION_MS))
def test_a_duration_survives_being_written(ms: int) -> None:
    assert parse_duration_ms(format_duration(ms)) == ms


@given(st.tuples(*[st.integers(0, 99)] * 6), st.sampled_from(["", " "]))
def test_a_duration_is_the_sum_of_its_parts(parts: tuple[int, ...], space: str) -> None:
    units = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    text = space.join(f"{n}{space}{unit}" for n, unit in zip(parts, units, strict=True))
    assert parse_duration_ms(text) == sum(
        n * size for n, size in zip(parts, units.values(), strict=True)
    )


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("250ms", 250),
        ("0", 0),
        (0, 0),
        ("2w", 1_209_600_000),
    ],
)
def test_durations(text: object, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "5M", "5min", "1.5h", "1:30", "30s1m", "1m1m", "-1s", "m", "٣s"),
        *("9" * 5000 + "s", f"{MAX_DURATION_MS + 1}ms"),
        *(5, None, True, 1.0),
    ],
)
def test_not_durations(text: object) -> None:
    with pytest.raises(ValueError, match="a duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("spec", "window"),
    [
        ("5m", TimeWindow(300_000, None, "5m")),
        ("  1h  30m ", TimeWindow(5_400_000, None, "1h 30m")),
        ("2000 events", EventWindow(2000, "2000 events")),
        ("2000events", EventWindow(2000, "2000events")),
        ("10,000 events", EventWindow(10_000, "10,000 events")),
        ("1 event", EventWindow(1, "1 event")),
        ({"size": "1h", "hop": "1h"}, TimeWindow(3_600_000, 3_600_000, "1h hop 1h")),
        ({"size": "1h"}, TimeWindow(3_600_000, None, "1h")),
        ({"size": "7 events"}, EventWindow(7, "7 events")),
    ],
)
def test_windows(spec: object, window: TimeWindow | EventWindow) -> None:
    assert parse_window(spec) == window


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "0s",
        5,
        True,
        None,
        "0 events",
        "-1 events",
        "events",
        ["5m"],
        {},
        {"hop": "1h"},
        {"size": {"size": "1h"}, "hop": "1h"},
        {"size": "1h", "hop": "0s"},
        {"size": "1h", "hop": None},
        {"size": "7 events", "hop": "1m"},
        {"size": "1h", 5: "x"},
    ],
)
def test_not_windows(spec: object) -> None:
    with pytest.raises(ValueError, match=r"window|duration|hop"):
        parse_window(spec)


@pytest.mark.parametrize(
    ("text", "size"),
    [(5, 5), ("5", 5), ("1MiB", 1_048_576), ("1 MB", 1_000_000), ("2kB", 2000), ("3 KiB", 3072)],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", [-1, True, "", "1 mb", "1.5MiB", None, 1.0])
def test_not_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="a size"):
        parse_bytes(text)


# Time


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_795_248_000_123, "2026-11-21T08:00:00.123Z"),
        (MIN_TIME_MS, "0001-01-01T00:00:00.000Z"),
        (MAX_TIME_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_iso(ms: int, text: str) -> None:
    assert iso_ms(ms) == text
    assert parse_time_ms(text) == ms


@given(st.integers(MIN_TIME_MS, MAX_TIME_MS))
def test_a_time_survives_being_written(ms: int) -> None:
    assert parse_time_ms(iso_ms(ms)) == ms


@pytest.mark.parametrize("ms", [MIN_TIME_MS - 1, MAX_TIME_MS + 1])
def test_a_time_outside_the_calendar_is_refused(ms: int) -> None:
    for function in (iso_ms, parse_time_ms):
        with pytest.raises(ValueError, match="years 1 to 9999"):
            function(ms)


NOON = 1_795_262_400_000  # 2026-11-21T12:00:00Z


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("2026-11-21T12:00:00Z", NOON),
        ("2026-11-21T12:00", NOON),
        ("2026-11-21 14:00:00+02:00", NOON),
        ("2026-11-21", NOON - 12 * 3_600_000),
        ("2026-11-21T12:00:00.123999Z", NOON + 123),
        (NOON, NOON),
        (str(NOON), NOON),
        ("now", NOON),
        ("-1h", NOON - 3_600_000),
        ("-1h30m", NOON - 5_400_000),
        (0, 0),
    ],
)
def test_times_of_since_and_until(value: str | int, ms: int) -> None:
    assert parse_time_ms(value, now_ms=NOON) == ms


def test_now_is_the_clock() -> None:
    assert parse_time_ms("-1h") < parse_time_ms("now")
    assert parse_time_ms("now") > NOON - 10 * 365 * 86_400_000


@pytest.mark.parametrize("value", ["", "yesterday", "+1h", "-1", "2026-13-01", "12:00", None, True])
def test_not_times(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a time: write"):
        parse_time_ms(value)


def test_absent_is_not_null() -> None:
    """`reference:` is null and shown as null; a key that is not there has no value to show."""
    shown = str(Problem("a", 1, None, "rule", "remedy", "f.yaml"))
    assert shown == "f.yaml:1: a: null: rule; remedy"
    assert str(Problem("a", 1, ABSENT, "rule", "remedy", "f.yaml")) == "f.yaml:1: a: rule; remedy"
