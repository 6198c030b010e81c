"""Texts become vectors: the same text the same bits, whatever it is embedded together with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ConfigError, EncodingError
from .huggingface import Network, Pooling, load_network

Float32 = npt.NDArray[np.float32]

# Longer than any entry of common vocabularies, so that 64·max_tokens characters make max_tokens
# tokens unless they are blanks, or words so long that they become one token for "unknown".
CHARACTERS_PER_TOKEN = 64
# Tokens of so many texts are held at a time.
_TEXTS_AT_ONCE = 4_096


class Encoder(Protocol):
    """What turns texts into vectors.

    identity: names all that decides the vectors beyond rounding. Vectors of encoders with
    different identities must never be compared.
    """

    @property
    def dimension(self) -> int: ...

    @property
    def identity(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> Float32:
        """The vectors (n, dimension) of n texts, in their order.

        A text's vector is the same bits whatever the other texts and wherever a batch is cut.

        Raises:
            EncodingError: some texts have no vector; it names them, the others can be encoded.
        """
        ...


@dataclass(frozen=True, slots=True)
class EncoderCounts:
    """What became of the texts given to `encode` so far.

    texts: all of them. computed: those that went through the model; the others were repeats or in
    the cache. truncated: those that lost their end. failed: those without a vector.
    """

    texts: int = 0
    computed: int = 0
    truncated: int = 0
    failed: int = 0


class HuggingFaceEncoder:
    """The vectors that a Hugging Face model gives to texts.

    Batches have fixed shapes: a text goes into the narrowest bucket (`bucket_widths`) that leaves
    one position free, a bucket always has the same number of rows (`rows_of`), and missing rows
    are filled up. So a text's bits depend on the text, the model, the batch size and the hardware
    (with its libraries and threads), not on its neighbours. float32 on the CPU, bfloat16 on CUDA.

    Of a text, the first `max_tokens` tokens count, special ones included, and of these only what
    its first 64·max_tokens characters give. A lone surrogate, which is no character, is read as
    U+FFFD. The vector of the empty text is that of the special tokens alone.

    Choose `pooling="mean"` for sentence encoders, "cls" for models trained so, "last_k" (the mean
    over the last `last_k` layers and over tokens) for models trained on masked words only.

    Cost: that of the model; a repeat costs a look-up. The cache holds 4·dimension + about 200
    bytes for each of `cache_texts` texts.
    """

    def __init__(self, network: Network, *, batch_size: int, cache_texts: int) -> None:
        self._network = network
        self._batch_size = batch_size
        self._widths = np.array(bucket_widths(network.max_tokens, network.positions))
        self._cache = _Cache(cache_texts, network.dimension)
        self._counts = EncoderCounts()

    @classmethod
    def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        pooling: Pooling = "mean",
        last_k: int = 4,
        max_tokens: int = 256,
        batch_size: int | None = None,
        device: str = "auto",
        cache_texts: int = 50_000,
    ) -> Self:
        """Load a model: safetensors only, and never code that comes with it.

        Args:
            model: a name on the Hugging Face hub, a local folder, or `package:NAME[:FOLDER]` for
                weights that an installed Python package carries.
            revision: branch, tag or commit on the hub.
            max_tokens: at least 8, and below the model's number of positions.
            batch_size: texts of 16 tokens in a batch; of longer ones as many fewer, so that a
                batch holds about 16·batch_size tokens. None: 32 on the CPU, 1,024 elsewhere.
            device: "auto" (CUDA if there is one, else the CPU), or a name that torch knows.
            cache_texts: how many vectors to remember, the least recently used going first.

        Raises:
            ConfigError: torch or transformers is not installed, the model cannot be loaded or used
                this way, or an argument is out of range.
        """
        for name, value, least in (
            ("batch_size", 1 if batch_size is None else batch_size, 1),
            ("cache_texts", cache_texts, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}")
        network = load_network(
            model,
            revision=revision,
            pooling=pooling,
            last_k=last_k,
            max_tokens=max_tokens,
            device=device,
        )
        if batch_size is None:
            batch_size = 32 if network.device == "cpu" else 1_024
        return cls(network, batch_size=batch_size, cache_texts=cache_texts)

    @property
    def dimension(self) -> int:
        return self._network.dimension

    @property
    def identity(self) -> str:
        """Content of weights, vocabulary and configuration, pooling, max_tokens, device, dtype.

        Name and revision do not count: the same model from another place gives the same vectors.
        Nor does the batch size, which changes rounding only.
        """
        return self._network.identity

    @property
    def counts(self) -> EncoderCounts:
        return self._counts

    def encode(self, texts: Sequence[str]) -> Float32:
        """As `Encoder.encode`; vectors that were found before an error are in the cache."""
        distinct: dict[bytes, int] = {}
        cleaned: list[str] = []
        was_cut: list[bool] = []
        failures: dict[int, str] = {}
        place = np.zeros(len(texts), np.int64)
        limit = CHARACTERS_PER_TOKEN * self._network.max_tokens
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                failures[position] = f"it is of type {type(text).__name__}; it must be a text"
                continue
            clean, encoded = _clean(text[:limit])
            cut = len(text) > limit
            # A text that ends where another is cut has its vector, but is not truncated.
            key = blake2b(encoded, digest_size=16, person=b"cut" if cut else b"").digest()
            at = distinct.setdefault(key, len(distinct))
            if at == len(cleaned):
                cleaned.append(clean)
                was_cut.append(cut)
            place[position] = at

        keys = list(distinct)
        vectors = np.zeros((len(keys), self.dimension), np.float32)
        truncated = np.array(was_cut, np.bool_)
        absent = [
            i for i, key in enumerate(keys) if not self._cache.get(key, vectors, truncated, i)
        ]
        bad: dict[int, str] = {}
        for start in range(0, len(absent), _TEXTS_AT_ONCE):
            chunk = absent[start : start + _TEXTS_AT_ONCE]
            bad |= self._compute(chunk, cleaned, vectors, truncated)
            for i in chunk:
                if i not in bad:
                    self._cache.put(keys[i], vectors[i], bool(truncated[i]))
        if bad:
            for position in range(len(texts)):
                if position not in failures and int(place[position]) in bad:
                    failures[position] = bad[int(place[position])]
        given = np.ones(len(texts), np.bool_)
        given[list(failures)] = False
        old = self._counts
        self._counts = EncoderCounts(
            texts=old.texts + len(texts),
            computed=old.computed + len(absent),
            truncated=old.truncated + int(np.count_nonzero(truncated[place[given]])),
            failed=old.failed + len(failures),
        )
        if failures:
            raise EncodingError(failures, len(texts))
        return vectors[place]

    def _compute(
        self,
        chosen: Sequence[int],
        texts: Sequence[str],
        vectors: Float32,
        truncated: npt.NDArray[np.bool_],
    ) -> dict[int, str]:
        """Fill in the chosen rows; which of them have no vector, and why."""
        tokens, bad_here = self._network.tokenise([texts[i] for i in chosen])
        bad = {chosen[i]: reason for i, reason in bad_here.items()}
        lengths = np.array([len(t.ids) for t in tokens], np.int64)
        # One position stays free, so that a batch is never all tokens: without any padding some
        # models take another path through attention, with other bits.
        bucket = np.searchsorted(self._widths, lengths, side="right")
        for b in np.unique(bucket):
            members = [i for i in np.flatnonzero(bucket == b).tolist() if i not in bad_here]
            width = int(self._widths[b])
            rows = rows_of(width, self._batch_size)
            for start in range(0, len(members), rows):
                batch = members[start : start + rows]
                found = self._network.embed([tokens[i].ids for i in batch], rows, width)
                for i, vector in zip(batch, found, strict=True):
                    vectors[chosen[i]] = vector
                    truncated[chosen[i]] |= tokens[i].truncated
                    if not np.isfinite(vector).all():
                        bad[chosen[i]] = "the model's vector for it holds NaN or infinity"
        return bad


def bucket_widths(max_tokens: int, positions: int | None = None) -> tuple[int, ...]:
    """Widths of batches in tokens, ascending; the last leaves `max_tokens` one position free.

    Steps of 8 up to 64, then an eighth to a quarter of the width, so that padding stays small.

    >>> bucket_widths(100)
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 104)
    """
    last = -(-(max_tokens + 1) // 8) * 8
    if positions is not None:
        last = min(last, positions)
    widths: list[int] = []
    width, step = 8, 8
    while width < last:
        widths.append(width)
        if width >= 64 and width & (width - 1) == 0:
            step = width // 4
        width += step
    return (*widths, last)


def rows_of(width: int, batch_size: int) -> int:
    """Rows of a batch: as many as hold the tokens of `batch_size` texts of 16.

    >>> [rows_of(width, 32) for width in (16, 64, 264)]
    [32, 8, 2]
    """
    return max(1, round(16 * batch_size / width))


def _clean(text: str) -> tuple[str, bytes]:
    """The text as tokenizers take it, and its UTF-8; lone surrogates become U+FFFD."""
    try:
        return text, text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text, text.encode()


class _Cache:
    """Vectors by key, at most `capacity`; the least recently used makes room."""

    def __init__(self, capacity: int, dimension: int) -> None:
        self._capacity = capacity
        self._slots: OrderedDict[bytes, int] = OrderedDict()
        self._vectors = np.empty((capacity, dimension), np.float32)
        self._truncated = np.zeros(capacity, np.bool_)

    def get(self, key: bytes, vectors: Float32, truncated: npt.NDArray[np.bool_], row: int) -> bool:
        """Copy what is known of `key` into a row; False if nothing is."""
        slot = self._slots.get(key)
        if slot is None:
            return False
        self._slots.move_to_end(key)
        vectors[row], truncated[row] = self._vectors[slot], self._truncated[slot]
        return True

    def put(self, key: bytes, vector: Float32, truncated: bool) -> None:
        if self._capacity == 0:
            return
        if len(self._slots) < self._capacity:
            slot = len(self._slots)
        else:
            slot = self._slots.popitem(last=False)[1]
        self._slots[key] = slot
        self._vectors[slot], self._truncated[slot] = vector, truncated
