"""alibi-detect: KSDrift and ChiSquareDrift, made once, `predict` at every look."""
# pyright: reportMissingImports=false

from __future__ import annotations

from alibi_detect.cd import ChiSquareDrift, KSDrift
from protocol import Answer, Job, PerLook, Task, Variant, serve


def prepare(task: Task, detector: KSDrift | ChiSquareDrift) -> Job:
    def test(last_event: int, size: int) -> Answer:
        found = detector.predict(task.window(last_event, size))["data"]
        return found["distance"], found["p_val"]

    return PerLook(task, test)


def ks(task: Task) -> Job:
    return prepare(task, KSDrift(task.reference, p_val=0.05))


def chi_squared(task: Task) -> Job:
    return prepare(task, ChiSquareDrift(task.reference, p_val=0.05))


if __name__ == "__main__":
    serve(
        ["alibi-detect", "scipy", "numpy"],
        {
            "ks": [Variant("KSDrift.predict", ks, "answers in float32")],
            "chi_squared": [Variant("ChiSquareDrift.predict", chi_squared, "answers in float32")],
        },
    )
