"""Scores of the detectors of vectors."""
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scorer import Base

Array = npt.NDArray[Any]

# The library's kernel matrix is the square of it.
_MOST_ROWS = 4_000

# --- vectors -----------------------------------------------------------------------------------


class _Kernel(Base):
    """MMDDriftOnline and LSDDDriftOnline take what does not depend on the stream from the library's
    own object (kernel, split of the reference, regularisation); thresholds are not configured by it
    but tuned by the benchmark."""

    size: int

    def untuned(self, reference: Array) -> Any:
        raise NotImplementedError

    def fit(self, reference: Array) -> None:
        import torch

        self.made = []
        reference = reference[-_MOST_ROWS:]
        for r in range(reference.shape[1]):
            torch.manual_seed(r)
            self.made.append(self.prepared(self.untuned(reference[:, r].astype(np.float32))))

    def prepared(self, detector: Any) -> dict[str, Array]:
        raise NotImplementedError

    def library(self, reference: Array, x: Array) -> Array:
        import torch

        torch.manual_seed(0)
        detector = self.untuned(reference[:, None].astype(np.float32))
        with torch.no_grad():
            return np.array([detector.score(v) for v in x[:300, None].astype(np.float32)])


def _rbf(a: Array, b: Array, sigma: float) -> Array:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * (a @ b.T)
    np.maximum(squares, 0, out=squares)
    squares *= -1 / (2 * sigma**2)
    return np.exp(squares, out=squares)


class Mmd(_Kernel):
    def __init__(self, size: int) -> None:
        self.size = size

    def untuned(self, reference: Array) -> Any:
        from alibi_detect.cd.pytorch.mmd_online import MMDDriftOnlineTorch

        class Untuned(MMDDriftOnlineTorch):
            def _configure_thresholds(self) -> None:
                self.thresholds = [np.inf] * self.window_size

        return Untuned(reference, 100.0, self.size, device="cpu", verbose=False)

    def prepared(self, detector: Any) -> dict[str, Array]:
        d = detector
        known, window = d.x_ref[d.ref_inds].numpy(), d.test_window.numpy()
        sigma = float(d.kernel.sigma)
        pairs = _rbf(window, window, sigma).astype(np.float64)
        return {
            "known": known,
            "sigma": np.array(sigma),
            "own": np.array(float(d.k_xx_sub_sum)),
            "window": window,
            "near": d.k_xy.numpy().mean(axis=0, dtype=np.float64),
            "pairs": np.array((pairs.sum() - np.trace(pairs)) / 2),
        }

    def feed(self, x: Array) -> Array:
        out = np.empty(x.shape[:2])
        for r, state in enumerate(self.made):
            for a in range(0, len(x), 500):
                out[a : a + 500, r] = self._feed(state, x[a : a + 500, r].astype(np.float32))
        return out

    def _feed(self, state: dict[str, Array], x: Array) -> Array:
        w, n, sigma = self.size, len(x), float(state["sigma"])
        near = np.concatenate([state["near"], _rbf(x, state["known"], sigma).mean(axis=1)])
        z = np.concatenate([state["window"], x])
        # Pairs of event i with the w - 1 that follow it.
        gram = _rbf(z, z, sigma)
        place = np.arange(len(z))
        apart = place[None] - place[:, None]
        band = np.where((apart > 0) & (apart < w), gram, 0)
        comes = band.sum(axis=0, dtype=np.float64)[w:]
        leaves = band.sum(axis=1, dtype=np.float64)[:n]
        pairs = float(state["pairs"]) + np.cumsum(comes - leaves)
        # What enters is paired with the w - 1 before it; what left had w - 1 after it.
        sums = np.concatenate([[0], np.cumsum(near)])
        mean = (sums[w + 1 :] - sums[1 : n + 1]) / w
        state["near"], state["window"], state["pairs"] = near[n:], z[n:], pairs[-1]
        return float(state["own"]) + 2 * pairs / (w * (w - 1)) - 2 * mean


class Lsdd(_Kernel):
    def __init__(self, size: int) -> None:
        self.size = size

    def untuned(self, reference: Array) -> Any:
        import torch
        from alibi_detect.cd.pytorch.lsdd_online import LSDDDriftOnlineTorch
        from alibi_detect.utils.pytorch import GaussianRBF, permed_lsdds

        class Untuned(LSDDDriftOnlineTorch):
            def _configure_thresholds(self) -> None:
                # As the library does for its first window, which gives the regularisation.
                w, n = self.window_size, self.n - self.n_kernel_centers
                perms = [torch.randperm(n) for _ in range(50)]
                wide = n - (2 * w - 1)
                h = GaussianRBF(np.sqrt(2.0) * self.kernel.sigma)(
                    self.kernel_centers, self.kernel_centers
                )
                _, self.H_lam_inv = permed_lsdds(
                    self.k_xc,
                    [p[:wide] for p in perms],
                    [p[wide:][:w] for p in perms],
                    h,
                    lam_rd_max=self.lambda_rd_max,
                )
                self.thresholds = [np.inf] * w

        return Untuned(reference, 100.0, self.size, device="cpu", verbose=False)

    def prepared(self, detector: Any) -> dict[str, Array]:
        d = detector
        mean = np.asarray(d._unnormalize(np.zeros_like(d.x_ref[:1])))
        return {
            "mean": mean,
            "sd": np.asarray(d._unnormalize(np.ones_like(d.x_ref[:1]))) - mean,
            "centres": d.kernel_centers.numpy(),
            "sigma": np.array(float(d.kernel.sigma)),
            "known": d.c2s.numpy(),
            "inverse": d.H_lam_inv.numpy(),
            "tail": d.k_xtc.numpy(),
        }

    def feed(self, x: Array) -> Array:
        out = np.empty(x.shape[:2])
        for r, s in enumerate(self.made):
            z = ((x[:, r] - s["mean"]) / s["sd"]).astype(np.float32)
            for a in range(0, len(z), 1_000):
                near = _rbf(z[a : a + 1_000], s["centres"], float(s["sigma"]))
                both = np.concatenate([s["tail"], near])
                sums = np.concatenate(
                    [np.zeros((1, both.shape[1])), np.cumsum(both, 0, np.float64)]
                )
                n = len(near)
                h = s["known"] - (sums[self.size + 1 :] - sums[1 : n + 1]) / self.size
                h = h.astype(np.float32)
                out[a : a + 1_000, r] = ((h @ s["inverse"]) * h).sum(axis=1)
                s["tail"] = both[n:]
        return out
