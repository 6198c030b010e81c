"""driftline: OnlineMMD and mmd_permutation_test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmd_protocol import Array, serve

from driftline.detectors import OnlineMMD, mmd_permutation_test


class Detector:
    def __init__(
        self, reference: Array, sizes: Sequence[int], ert: float, seed: int, bootstraps: int | None
    ) -> None:
        options = {} if bootstraps is None else {"n_bootstraps": bootstraps}
        self._online = OnlineMMD.fit(reference, sizes, ert=ert, seed=seed, **options)

    def feed(self, events: Array) -> Array:
        return self._online.update(events).drifted.any(axis=1)

    def restart(self) -> None:
        self._online.reset()


def permutation(reference: Array, permutations: int) -> Callable[[Array], float]:
    return lambda window: (
        mmd_permutation_test(reference, window, n_permutations=permutations).p_value
    )


if __name__ == "__main__":
    serve(["driftline", "numpy"], Detector, permutation)
