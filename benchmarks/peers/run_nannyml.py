"""nannyml: its method classes, fitted once on the reference, and the calculator around them."""
# pyright: reportMissingImports=false

from __future__ import annotations

import numpy as np
import pandas as pd
from nannyml import UnivariateDriftCalculator
from nannyml.chunk import SizeBasedChunker
from nannyml.drift.univariate.methods import FeatureType, MethodFactory
from nannyml.thresholds import StandardDeviationThreshold
from protocol import Answer, Array, Job, PerLook, Task, Variant, serve

KEYS = {"ks": "kolmogorov_smirnov", "chi_squared": "chi2"}


def frame(rows: Array, job: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[f"f{j:02d}" for j in range(rows.shape[1])])
    # Plain integers: the fastest of integers, strings and pandas categories for its counting.
    return table if job == "ks" else table.astype(np.int64)


def by_method(job: str):
    """One fitted method per feature and window size; `calculate` and `alert` at every look."""
    kind = FeatureType.CONTINUOUS if job == "ks" else FeatureType.CATEGORICAL

    def prepare(task: Task) -> Job:
        stream, reference = frame(task.stream, job), frame(task.reference, job)
        methods = {
            size: [
                MethodFactory.create(
                    KEYS[job],
                    kind,
                    chunker=SizeBasedChunker(size),
                    threshold=StandardDeviationThreshold(),
                ).fit(reference[c])
                for c in stream.columns
            ]
            for size in task.windows
        }
        columns = [stream[c] for c in stream.columns]

        def test(last_event: int, size: int) -> Answer:
            window = slice(last_event - size, last_event)
            statistic = np.empty(task.n_features)
            for j, method in enumerate(methods[size]):
                statistic[j] = method.calculate(columns[j].iloc[window])
                method.alert(statistic[j])
            if job == "ks":
                return statistic, None
            return statistic, np.array([m._p_value for m in methods[size]])

        return PerLook(task, test)

    return prepare


def by_calculator(job: str):
    def prepare(task: Task) -> Job:
        stream, reference = frame(task.stream, job), frame(task.reference, job)
        columns = list(stream.columns)
        calculators = {
            size: UnivariateDriftCalculator(
                column_names=columns,
                continuous_methods=[KEYS["ks"]],
                categorical_methods=[KEYS["chi_squared"]],
                treat_as_categorical=columns if job == "chi_squared" else None,
                chunk_size=size,
            ).fit(reference)
            for size in task.windows
        }

        def test(last_event: int, size: int) -> Answer:
            rows = stream.iloc[last_event - size : last_event].reset_index(drop=True)
            result = calculators[size].calculate(rows).filter(period="analysis").to_df()
            return np.array([float(result[c][KEYS[job]]["value"].iloc[0]) for c in columns]), None

        return PerLook(task, test)

    return prepare


if __name__ == "__main__":
    ESTIMATED = "from 10,000 equal-width bins once the reference has 10,000 rows; no p-value"
    serve(
        ["nannyml", "pandas", "scipy", "numpy"],
        {
            "ks": [
                Variant("KolmogorovSmirnovStatistic.calculate", by_method("ks"), ESTIMATED),
                Variant("UnivariateDriftCalculator", by_calculator("ks"), ESTIMATED),
            ],
            "chi_squared": [
                Variant("Chi2Statistic.calculate", by_method("chi_squared")),
                Variant("UnivariateDriftCalculator", by_calculator("chi_squared")),
            ],
        },
    )
