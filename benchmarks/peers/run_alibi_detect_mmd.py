"""alibi-detect: MMDDriftOnline with its torch backend, and MMDDrift, one thread.

A run begins with a window full of reference rows, so the first event is tested. Each restart takes
another split of the reference into reference window and first window, which `reset_state` does not.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from alibi_detect.cd import MMDDrift, MMDDriftOnline
from mmd_protocol import Array, serve


class Detector:
    def __init__(
        self, reference: Array, sizes: Sequence[int], ert: float, seed: int, bootstraps: int | None
    ) -> None:
        torch.manual_seed(seed)
        np.random.seed(seed)
        [size] = sizes
        own = {} if bootstraps is None else {"n_bootstraps": bootstraps}
        self._online = MMDDriftOnline(
            reference,
            ert=ert,
            window_size=size,
            backend="pytorch",
            device="cpu",
            verbose=False,
            **own,
        )

    def feed(self, events: Array) -> Array:
        return np.array([self._online.predict(event)["data"]["is_drift"] for event in events], bool)

    def restart(self) -> None:
        self._online.reset_state()
        self._online._detector._configure_ref_subset()


def permutation(reference: Array, permutations: int) -> Callable[[Array], float]:
    test = MMDDrift(reference, backend="pytorch", device="cpu", n_permutations=permutations)
    return lambda window: test.predict(window)["data"]["p_val"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(["alibi-detect", "torch", "numpy"], Detector, permutation)
