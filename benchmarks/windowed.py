"""Windowed KS and chi-squared tests per hop: driftline beside what a user would otherwise pick.

    python -m benchmarks.windowed

makes the peers' environments (once), lets driftline and each peer do the same job on the same rows
in turn, one thread each, and prints how many times as long the peer took. README.md beside this
file says what is and what is not compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .common import (
    DEFAULT_CACHE,
    PeerError,
    Spread,
    Worker,
    ensure_environment,
    machine,
    run,
    steps_for,
    write_json,
)
from .windowed_data import (
    DRIFT_HOPS,
    FILL,
    HOP,
    TIMED_HOPS,
    Difference,
    Oracle,
    differences,
    make_data,
)
from .windowed_report import WINDOWS, Result, markdown, report

HERE = Path(__file__).resolve().parent
PEERS = ("scipy", "alibi-detect", "frouros", "river", "evidently", "nannyml")
JOBS = ("ks", "chi_squared")
# The most hops one timed stretch has; further rounds start at other hops.
MOST_HOPS = 200
TOLERANCE = 1e-9


def say(text: str) -> None:
    """Progress goes to stderr, figures to stdout."""
    print(text, file=sys.stderr, flush=True)


def first_event(round_index: int) -> int:
    """Where a round starts: always at a hop, elsewhere in each, never into the drifting part."""
    return FILL + HOP * (round_index * 150 % (TIMED_HOPS - MOST_HOPS))


@dataclass(frozen=True, slots=True)
class Settings:
    cache: Path
    data: Path
    rounds: int
    budget_s: float
    limit_s: float

    def start(self, name: str, interpreter: Path, label: str) -> Worker:
        script = HERE / "peers" / f"run_{name.replace('-', '_')}.py"
        log = self.cache / "work" / f"{label}.log"
        return Worker([str(interpreter), str(script)], log, limit_s=self.limit_s)

    def prepare(self, worker: Worker, job: str, variant: str, windows: Sequence[int]) -> int:
        """Returns how many events a step has."""
        answer = worker.ask(
            "prepare", data=str(self.data), hop=HOP, job=job, variant=variant, windows=list(windows)
        )
        return int(answer["events_per_step"])


@dataclass(slots=True)
class Comparison:
    """driftline's worker, and everything the peers are compared with it by.

    own_times: driftline's µs per event, round by round, for each job and its windows.
    """

    settings: Settings
    ours: Worker
    oracles: dict[str, Oracle]
    own_times: dict[tuple[str, tuple[int, ...]], list[float]] = field(default_factory=dict)

    def check_ours(self) -> dict[str, float]:
        """The largest relative difference of our answers from scipy's, per job."""
        hops = np.linspace(0, TIMED_HOPS + DRIFT_HOPS, 21, dtype=int)[1:]
        last_events = [FILL + HOP * int(hop) for hop in hops]
        found: dict[str, float] = {}
        for job, oracle in self.oracles.items():
            self.settings.prepare(self.ours, job, "live", WINDOWS[-1])
            found[job] = differences(self.ours, oracle, WINDOWS[-1], last_events).relative
        return found

    def peer(self, name: str, interpreter: Path) -> Iterator[Result]:
        """Every variant of one peer on every job. A worker that ended is started again."""
        label = f"{name}-peer"
        worker = self.settings.start(name, interpreter, label)
        try:
            hello = worker.ask("hello")
            for job in self.oracles:
                for windows in WINDOWS:
                    for offered in hello["variants"].get(job, []):
                        once = not offered["uses_windows"]
                        itself = name == "driftline" and offered["name"] == "live"
                        if itself or (once and windows != WINDOWS[0]):
                            continue
                        if not worker.alive:
                            worker.close()
                            worker = self.settings.start(name, interpreter, label)
                        base = Result(
                            name, offered["name"], offered["note"], offered["same_job"], job,
                            () if once else windows,
                        )  # fmt: skip
                        result = self._variant(base, windows, worker)
                        say(f"  {base.variant}, {job} {windows}: {result.error or 'done'}")
                        yield result
        finally:
            worker.close()

    def _variant(self, base: Result, windows: tuple[int, ...], worker: Worker) -> Result:
        self.settings.prepare(self.ours, base.job, "live", windows)
        try:
            per_step = self.settings.prepare(worker, base.job, base.variant, windows)
            found = self._rounds(
                worker, per_step, self.own_times.setdefault((base.job, windows), [])
            )
            apart = Difference(None, None, 0.0)
            if base.same_job:
                last_events = [FILL + HOP * hop for hop in (MOST_HOPS, TIMED_HOPS + DRIFT_HOPS)]
                apart = differences(worker, self.oracles[base.job], windows, last_events)
        except PeerError as error:
            return replace(base, error=str(error))
        return replace(
            base, **found, statistic_difference=apart.statistic, p_value_difference=apart.p_value
        )

    def _rounds(self, worker: Worker, per_step: int, own_times: list[float]) -> dict[str, Any]:
        """Interleaved rounds of two prepared workers; one that needs long takes one step a round.

        Returns:
            fields of a `Result`.
        """
        budget_s = self.settings.budget_s
        most = max(1, MOST_HOPS * HOP // per_step)
        steps = steps_for(worker, first_event(0), budget_s, most)
        own_steps = steps_for(self.ours, first_event(0), budget_s, MOST_HOPS)
        times: list[float] = []
        ratios: list[float] = []
        cpu_s = wall_s = 0.0
        for i in range(self.settings.rounds):
            own = run(self.ours, first_event(i), own_steps)
            other = run(worker, first_event(i), steps)
            own_times.append(own.us_per_event)
            times.append(other.us_per_event)
            ratios.append(other.us_per_event / own.us_per_event)
            cpu_s += own.cpu_s + other.cpu_s
            wall_s += own.wall_s + other.wall_s
        return {
            "events": steps * per_step,
            "us_per_event": Spread.of(times),
            "ratio": Spread.of(ratios),
            "cpu_share": cpu_s / wall_s,
        }

    def own_results(self) -> list[Result]:
        """driftline's row: its times from all the rounds it took beside the others."""
        return [
            Result(
                "driftline", "live", "events come a hop at a time", True, job, windows,
                us_per_event=Spread.of(times),
            )
            for (job, windows), times in self.own_times.items()
            if times
        ]  # fmt: skip


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.windowed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--cache", type=Path, default=DEFAULT_CACHE, help="environments, streams (%(default)s)")
    option("--peers", default=",".join(PEERS), help="which of %(default)s")
    option("--jobs", default=",".join(JOBS), help="which of %(default)s")
    option("--rounds", type=int, default=5, help="interleaved rounds (%(default)s)")
    option("--budget-s", type=float, default=0.4, help="seconds a side has in a round; at least "
           "one step is taken (%(default)s)")  # fmt: skip
    option("--limit-s", type=float, default=180.0, help="a peer that answers no sooner is given up "
           "(%(default)s)")  # fmt: skip
    option("--json", type=Path, help="also write the figures here")
    option("--markdown", type=Path, help="also write the tables here, as in the README")
    chosen = parser.parse_args(given)
    for name, allowed in (("peers", PEERS), ("jobs", JOBS)):
        values = [v for v in getattr(chosen, name).split(",") if v]
        unknown = [v for v in values if v not in allowed]
        if unknown:
            parser.error(f"--{name} {','.join(unknown)}: choose among {','.join(allowed)}")
        setattr(chosen, name, values)
    if chosen.rounds < 1:
        parser.error(f"--rounds {chosen.rounds}: at least 1")
    return chosen


def main(given: Sequence[str] | None = None) -> int:
    chosen = arguments(given)
    cache = chosen.cache.expanduser().resolve()
    settings = Settings(cache, cache / "data", chosen.rounds, chosen.budget_s, chosen.limit_s)
    make_data(settings.data)

    # driftline again as its own peer, for its other way of being fed; then the others.
    own_python = Path(sys.executable)
    interpreters: dict[str, Path] = {"driftline": own_python}
    missing: dict[str, str] = {}
    for name in chosen.peers:
        say(f"environment of {name}")
        try:
            interpreters[name] = ensure_environment(HERE / "peers" / f"{name}.txt", cache)
        except PeerError as error:
            missing[name] = str(error)

    packages: dict[str, dict[str, str]] = {}
    results: list[Result] = []
    with settings.start("driftline", own_python, "driftline") as ours:
        oracles = {job: Oracle(settings.data, job) for job in chosen.jobs}
        comparison = Comparison(settings, ours, oracles)
        checked = comparison.check_ours()
        for name, interpreter in interpreters.items():
            say(name)
            try:
                with settings.start(name, interpreter, f"{name}-peer") as worker:
                    packages[name] = worker.ask("hello")["packages"]
            except PeerError as error:
                missing[name] = f"installed, but does not start: {error}"
                continue
            results += comparison.peer(name, interpreter)
        results = comparison.own_results() + results

    report(results, missing, packages, checked)
    if chosen.markdown:
        chosen.markdown.write_text(markdown(results, checked))
    if chosen.json:
        write_json(chosen.json, {
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "settings": {"rounds": chosen.rounds, "budget_s": chosen.budget_s, "threads": 1},
            "packages": packages,
            "did_not_run": missing,
            "largest_relative_difference_from_scipy": checked,
            "results": [result.as_dict() for result in results],
        })  # fmt: skip
    wrong = {job: apart for job, apart in checked.items() if not apart <= TOLERANCE}
    if wrong:
        say(f"driftline differs from scipy by more than {TOLERANCE:g}: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PeerError as failed:
        sys.exit(f"driftline itself failed: {failed}")
