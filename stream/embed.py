"""From the values of vector features to vectors: texts are embedded, lists checked, groups built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..detectors.encode import Encoder, HuggingFaceEncoder
from ..detectors.profile import Profile
from ..detectors.vectors import VectorColumn, VectorProfile, VectorSpec, picked, taken
from ..schemas.deadletter import Reason
from ..schemas.errors import EncodingError, EventError, ProfileError, show_value

# Texts embedded between two signs of life.
_CHUNK: Final = 64
# A number of a vector; beyond it, a weighted sum of many could leave the range of 32 bits.
LARGEST: Final = 1e30
# Characters of a text that a pane carries, for people to read.
_SHOWN_CHARACTERS: Final = 300


@dataclass(slots=True, eq=False)
class Raw:
    """The vectors of a batch of n events, before they are reduced; see `VectorColumn`.

    vectors: (k, d_in) float32.
    """

    present: npt.NDArray[np.bool_]
    at: npt.NDArray[np.intp]
    vectors: npt.NDArray[np.float32]
    texts: Sequence[str] | None = None

    def take(self, events: npt.NDArray[np.intp]) -> Raw:
        """Those of some of the events, given by their positions, ascending."""
        place = np.full(len(self.present), -1, np.intp)
        place[events] = np.arange(len(events))
        mine = np.flatnonzero(place[self.at] >= 0)
        texts = None if self.texts is None else picked(self.texts, mine)
        return Raw(self.present[events], place[self.at[mine]], self.vectors[mine], texts)

    def spread(self, events: npt.NDArray[np.intp], n: int) -> Raw:
        """As vectors of n events, of which these are `events`."""
        present = np.zeros(n, np.bool_)
        present[events] = self.present
        return Raw(present, events[self.at], self.vectors, self.texts)

    def column(self, profile: VectorProfile) -> VectorColumn:
        return VectorColumn(self.present, self.at, profile.reduced(self.vectors), self.texts)


class Embedding:
    """Makes the vectors of one model's events.

    Args:
        profile: of the whole model; a segment's vectors are the same before they are reduced.

    Raises:
        ProfileError: an encoder that makes other vectors than those the reference was fitted on.
    """

    def __init__(self, profile: Profile) -> None:
        self.features = profile.vectors
        self._encoders = {
            f.name: encoder_of(f.spec) for f in self.features if f.spec.kind == "text"
        }
        for f in self.features:
            encoder = self._encoders.get(f.name)
            if encoder is not None and encoder.identity != f.encoder:
                raise ProfileError(
                    f"feature {f.name!r}: the reference was embedded by {f.encoder}, and "
                    f"`encoder` is now {encoder.identity}; their vectors cannot be compared: name "
                    "the same model and revision, or run `driftline fit` again"
                )

    @property
    def texts(self) -> bool:
        """Whether any are embedded, which takes long."""
        return bool(self._encoders)

    def raw(
        self,
        ids: Sequence[str],
        column: Callable[[str], Sequence[Any]],
        matrix: Callable[[Sequence[str]], npt.NDArray[np.float64]],
        pulse: Callable[[], None],
    ) -> tuple[dict[str, Raw], list[tuple[int, EventError]]]:
        """Vectors per feature, and the events whose value cannot become one.

        Args:
            ids: of the events. column: values of a text or vector feature by its name. matrix:
                (members, n) values of numeric features. pulse: called again and again meanwhile.
        """
        found: dict[str, Raw] = {}
        refused: dict[int, EventError] = {}
        for f in self.features:
            if f.spec.kind == "text":
                # Those outside the share are not even embedded.
                raw, errors = self._texts(f, column(f.name), ids, pulse)
            elif f.spec.kind == "vector":
                raw, errors = lists(column(f.name), f.dimension_in, f.name)
                raw = _shared(raw, ids, f.spec.share)
            else:
                raw, errors = _group(matrix(f.spec.members)), []
                raw = _shared(raw, ids, f.spec.share)
            found[f.name] = raw
            for i, error in errors:
                refused.setdefault(i, error)
        return found, sorted(refused.items())

    def _texts(
        self,
        f: VectorProfile,
        values: Sequence[str | None],
        ids: Sequence[str],
        pulse: Callable[[], None],
    ) -> tuple[Raw, list[tuple[int, EventError]]]:
        present = np.fromiter((v is not None for v in values), np.bool_, len(values))
        at = np.flatnonzero(present)
        at = at[taken(picked(ids, at), f.spec.share)]
        texts = [values[i] or "" for i in at.tolist()]
        vectors, failed = embed(self._encoders[f.name], texts, pulse)
        errors = [
            (
                int(at[i]),
                EventError(
                    Reason.BAD_VECTOR,
                    f"the text of {f.name!r} ({show_value(texts[i])}) could not be embedded: {why}",
                ),
            )
            for i, why in failed.items()
        ]
        if failed:
            fine = np.array([i for i in range(len(texts)) if i not in failed], np.intp)
            at, vectors, texts = at[fine], vectors[fine], picked(texts, fine)
        shown = [t[:_SHOWN_CHARACTERS] for t in texts] if f.spec.include_values else None
        if shown is not None:
            # Half a surrogate pair cannot be written as UTF-8.
            shown = [t.encode("utf-8", "replace").decode() for t in shown]
        return Raw(present, at, vectors, shown), errors


@cache
def _encoder(
    model: str, revision: str | None, pooling: Any, last_k: int, max_tokens: int
) -> Encoder:
    return HuggingFaceEncoder.load(
        model, revision=revision, pooling=pooling, last_k=last_k, max_tokens=max_tokens
    )


def encoder_of(spec: VectorSpec) -> Encoder:
    """The encoder of a text feature, loaded once in a process."""
    assert spec.encoder is not None
    return _encoder(spec.encoder, spec.revision, spec.pooling, spec.last_k, spec.max_tokens)


def embed(
    encoder: Encoder, texts: Sequence[str], pulse: Callable[[], None] = lambda: None
) -> tuple[npt.NDArray[np.float32], dict[int, str]]:
    """(n, dimension) vectors, and why some texts have none (theirs are zero)."""
    vectors = np.zeros((len(texts), encoder.dimension), np.float32)
    failed: dict[int, str] = {}
    for start in range(0, len(texts), _CHUNK):
        chunk = list(range(start, min(start + _CHUNK, len(texts))))
        while chunk:
            try:
                vectors[chunk] = encoder.encode([texts[i] for i in chunk])
                break
            except EncodingError as error:
                for position, why in error.failures.items():
                    failed[chunk[position]] = why
                chunk = [i for i in chunk if i not in failed]
        pulse()
    return vectors, failed


def lists(
    values: Sequence[Sequence[float] | None], dimension: int, name: str
) -> tuple[Raw, list[tuple[int, EventError]]]:
    """Vectors that events carry; one of another length or with a hole is refused."""
    present = np.fromiter((v is not None for v in values), np.bool_, len(values))
    at = np.flatnonzero(present)
    errors: list[tuple[int, EventError]] = []
    fine: list[int] = []
    for i in at.tolist():
        vector = values[i] or ()
        if len(vector) != dimension:
            rule = f"has {len(vector)} numbers, and those of the reference have {dimension}"
            errors.append((i, EventError(Reason.BAD_VECTOR, f"the vector {name!r} {rule}")))
        else:
            fine.append(i)
    rows = np.array([values[i] for i in fine], np.float64).reshape(len(fine), dimension)
    near = np.abs(rows) <= LARGEST  # false for NaN
    whole = near.all(axis=1)
    for j in np.flatnonzero(~whole).tolist():
        hole = int(np.flatnonzero(~near[j])[0])
        rule = f"has {rows[j, hole]} at position {hole}; every number is finite and within ±1e30"
        errors.append((fine[j], EventError(Reason.BAD_VECTOR, f"the vector {name!r} {rule}")))
    return Raw(present, np.array(fine, np.intp)[whole], rows[whole].astype(np.float32)), errors


def _group(matrix: npt.NDArray[np.float64]) -> Raw:
    # An event without one of the members has no place in the space they span.
    present = np.asarray((np.abs(matrix) <= LARGEST).all(axis=0))
    at = np.flatnonzero(present)
    return Raw(present, at, np.ascontiguousarray(matrix.T[at], np.float32))


def _shared(raw: Raw, ids: Sequence[str], share: float) -> Raw:
    """Only the vectors of the events that the share takes; the others count as present."""
    if share >= 1.0:
        return raw
    chosen = taken(picked(ids, raw.at), share)
    return Raw(raw.present, raw.at[chosen], raw.vectors[chosen])
