"""The peers' detectors by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kernels import Lsdd, Mmd
from recursions import Adwin, Cusum, PageHinkley
from scorer import Base
from windowed_scores import CramerVonMises, Fisher, IncrementalKs, Kswin

SCORERS: Final[dict[str, Callable[[], Base]]] = {
    "river PageHinkley": lambda: PageHinkley(),
    "river ADWIN": lambda: Adwin(),
    "river KSWIN 100/30": lambda: Kswin(100, 30),
    "river KSWIN 500/100": lambda: Kswin(500, 100),
    "frouros CUSUM": lambda: Cusum("cusum"),
    "frouros PageHinkley": lambda: Cusum("page_hinkley"),
    "frouros GeometricMovingAverage": lambda: Cusum("moving_average"),
    "frouros IncrementalKSTest 100": lambda: IncrementalKs(100),
    "frouros IncrementalKSTest 500": lambda: IncrementalKs(500),
    "alibi-detect CVMDriftOnline": lambda: CramerVonMises((50, 200, 1000)),
    "alibi-detect FETDriftOnline": lambda: Fisher((50, 200, 1000)),
    "alibi-detect MMDDriftOnline 50": lambda: Mmd(50),
    "alibi-detect MMDDriftOnline 200": lambda: Mmd(200),
    "alibi-detect LSDDDriftOnline 200": lambda: Lsdd(200),
}
