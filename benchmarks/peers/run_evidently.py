"""evidently: a report at every look, with the test named; and its test functions alone."""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import chi_stat_test, ks_stat_test
from evidently.legacy.core import ColumnType
from evidently.metrics import ValueDrift
from evidently.presets import DataDriftPreset
from protocol import Answer, Array, Job, PerLook, Task, Variant, serve


def frame(rows: Array, job: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[f"f{j:02d}" for j in range(rows.shape[1])])
    return table if job == "ks" else table.astype(str)


def definition(columns: list[str], job: str) -> DataDefinition:
    if job == "ks":
        return DataDefinition(numerical_columns=columns)
    return DataDefinition(categorical_columns=columns)


def reported(job: str, metrics: Callable[[list[str]], list[object]]):
    """A report per look. The reference dataset is made once, the stream's frame too."""

    def prepare(task: Task) -> Job:
        stream = frame(task.stream, job)
        columns = list(stream.columns)
        defined = definition(columns, job)
        reference = Dataset.from_pandas(frame(task.reference, job), data_definition=defined)

        def test(last_event: int, size: int) -> Answer:
            rows = stream.iloc[last_event - size : last_event]
            current = Dataset.from_pandas(rows, data_definition=defined)
            result = Report(metrics(columns)).run(current, reference).dict()
            by_column = {
                m["config"]["column"]: m["value"]
                for m in result["metrics"]
                if "column" in m["config"]
            }
            return None, np.array([float(by_column[c]) for c in columns])

        return PerLook(task, test)

    return prepare


def bare(job: str):
    """The registered test function on two columns, without datasets and reports."""
    function, kind = (
        (ks_stat_test, ColumnType.Numerical)
        if job == "ks"
        else (chi_stat_test, ColumnType.Categorical)
    )

    def prepare(task: Task) -> Job:
        stream, reference = frame(task.stream, job), frame(task.reference, job)
        pairs = [(reference[c], stream[c]) for c in stream.columns]

        def test(last_event: int, size: int) -> Answer:
            window = slice(last_event - size, last_event)
            found = [function(r, s.iloc[window], kind, 0.05) for r, s in pairs]
            return None, np.array([float(f.drift_score) for f in found])

        return PerLook(task, test)

    return prepare


def drift(method: str) -> Callable[[list[str]], list[object]]:
    return lambda columns: [ValueDrift(column=c, method=method) for c in columns]


if __name__ == "__main__":
    GOODNESS = "goodness of fit: takes the reference's shares as known, so another p-value"
    EXACT = "calls ks_2samp with its default, the exact law"
    serve(
        ["evidently", "pandas", "scipy", "numpy"],
        {
            "ks": [
                Variant("Report of ValueDrift(method='ks')", reported("ks", drift("ks")), EXACT),
                Variant(
                    "Report of DataDriftPreset(num_method='ks')",
                    reported("ks", lambda _: [DataDriftPreset(num_method="ks")]),
                    EXACT,
                ),
                Variant("ks_stat_test alone", bare("ks"), f"internal function, no report; {EXACT}"),
            ],
            "chi_squared": [
                Variant(
                    "Report of ValueDrift(method='chisquare')",
                    reported("chi_squared", drift("chisquare")),
                    GOODNESS,
                    same_job=False,
                ),
                Variant(
                    "Report of DataDriftPreset(cat_method='chisquare')",
                    reported("chi_squared", lambda _: [DataDriftPreset(cat_method="chisquare")]),
                    GOODNESS,
                    same_job=False,
                ),
                Variant(
                    "chi_stat_test alone",
                    bare("chi_squared"),
                    f"internal function, no report; {GOODNESS}",
                    same_job=False,
                ),
            ],
        },
    )
