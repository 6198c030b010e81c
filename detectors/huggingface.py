"""A Hugging Face model: found, loaded, asked for the vectors of one batch.

torch and transformers are imported only when a model is loaded.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from ..schemas.errors import ConfigError

Pooling = Literal["mean", "cls", "last_k"]

# Texts whose tokens show what a vocabulary does not: case, accents, scripts, digits, blanks.
_PROBES = ("Ünïted NATIONS, 1,234.5!  tab\tend", "漢字 かな עברית العربية", "don't re-use_it 🙂")
# What a model's configuration says that does not change its vectors.
_IRRELEVANT = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures"}


class Tokens(NamedTuple):
    """Token numbers of one text, special ones included, and whether its end was left out."""

    ids: Sequence[int]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded model with its tokenizer.

    positions: how wide a batch may be; None where the model sets no bound.
    n_tokens: rows of the model's token table; a number beyond it cannot be looked up.
    """

    model: Any
    tokenizer: Any
    device: str
    pooling: Pooling
    last_k: int
    max_tokens: int
    positions: int | None
    n_tokens: int
    pad: int
    dimension: int
    identity: str

    def tokenise(self, texts: Sequence[str]) -> tuple[list[Tokens], dict[int, str]]:
        """The tokens of each text, and the places of those that have none, with the reason."""
        bad: dict[int, str] = {}
        try:
            found = self.tokenizer.encode_batch_fast(texts)
        except Exception:
            # One text fails all. Which one shows only when they come alone.
            found = [self._one(text, i, bad) for i, text in enumerate(texts)]
        tokens: list[Tokens] = []
        for i, encoding in enumerate(found):
            ids = encoding.ids if encoding is not None else []
            if ids and max(ids) >= self.n_tokens:
                bad[i] = (
                    f"its token {max(ids)} is beyond the model's table of {self.n_tokens} tokens"
                )
            # Without any token there is no mean: one of padding stands for the empty text.
            tokens.append(Tokens(ids or [self.pad], bool(encoding and encoding.overflowing)))
        return tokens, bad

    def _one(self, text: str, i: int, bad: dict[int, str]) -> Any:
        try:
            return self.tokenizer.encode_batch_fast([text])[0]
        except Exception as error:
            bad[i] = f"the tokenizer refuses it: {error}"
            return None

    def embed(self, ids: Sequence[Sequence[int]], rows: int, width: int) -> npt.NDArray[np.float32]:
        """Vectors (len(ids), dimension), computed in a batch of (rows, width)."""
        import torch

        matrix = np.full((rows, width), self.pad, np.int64)
        # A row that stands for no text has one token: a row of padding alone would be NaN.
        lengths = np.ones(rows, np.int64)
        for row, numbers in enumerate(ids):
            matrix[row, : len(numbers)] = numbers
            lengths[row] = len(numbers)
        mask = np.arange(width) < lengths[:, None]
        with torch.inference_mode():
            vectors = pooled(
                self.model,
                torch.from_numpy(matrix).to(self.device),
                torch.from_numpy(mask.astype(np.int64)).to(self.device),
                self.pooling,
                self.last_k,
            )
            return vectors.cpu().numpy()[: len(ids)]


def pooled(model: Any, ids: Any, mask: Any, pooling: Pooling, last_k: int) -> Any:
    """One float32 vector per row of `ids`, padding left out."""
    out = model(input_ids=ids, attention_mask=mask, output_hidden_states=pooling == "last_k")
    if pooling == "cls":
        return out.last_hidden_state[:, 0].float()
    if pooling == "last_k":
        layers = out.hidden_states[-last_k:]
        tokens = sum(layer.float() for layer in layers[1:]) + layers[0].float()
        tokens = tokens / len(layers)
    else:
        tokens = out.last_hidden_state.float()
    kept = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * kept).sum(1) / kept.sum(1)


def load_network(
    model: str,
    *,
    revision: str | None,
    pooling: Pooling,
    last_k: int,
    max_tokens: int,
    device: str,
) -> Network:
    """Load tokenizer and weights, and try them once.

    Raises:
        ConfigError: torch or transformers is absent, the model cannot be found, is not in
            safetensors, needs code of its own, lacks weights, or cannot take `max_tokens`.
    """
    if pooling not in get_args(Pooling):
        raise ConfigError(
            f"pooling is {pooling!r}; it must be one of {', '.join(get_args(Pooling))}"
        )
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"texts need torch and transformers, and {error.name or error} cannot be imported; "
            "install them: pip install 'driftline[text]'"
        ) from None

    place = find_model(model)
    local = Path(place).is_dir()
    options: dict[str, Any] = {"revision": revision} if revision and not local else {}
    options |= {"trust_remote_code": False, "local_files_only": local}
    try:
        with _quiet(transformers):
            config, _ = transformers.PretrainedConfig.get_config_dict(place, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, use_fast=True, **options)
            network, info = transformers.AutoModel.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, **options
            )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ConfigError(
            f"the model {model!r} cannot be loaded: {str(error).strip().splitlines()[0]}; it must "
            "be a name on the Hugging Face hub, a folder, or package:NAME, with its weights in "
            "safetensors and no code of its own"
        ) from error
    # A pooling layer is not used here, and many checkpoints come without one.
    missing = sorted(k for k in info["missing_keys"] if "pooler" not in k)
    if missing:
        raise ConfigError(
            f"the model {model!r} lacks {len(missing)} weights, {missing[0]} for one, which would "
            "be drawn at random; use a checkpoint that holds the whole encoder"
        )
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(
            f"the model {model!r} has no fast tokenizer (tokenizer.json); use one that has"
        )
    backend.no_padding()
    backend.no_truncation()
    network = network.eval().requires_grad_(False).float()
    digest = _digest(network, backend, config)

    positions = _positions(network.config, tokenizer)
    most = None if positions is None else positions - 1
    if max_tokens < 8 or (most is not None and max_tokens > most):
        bound = "8 or more" if most is None else f"between 8 and {most}, one below its positions"
        raise ConfigError(f"max_tokens is {max_tokens}; for the model {model!r} it must be {bound}")
    n_layers = len(_hidden_states(network))
    if pooling == "last_k" and not 1 <= last_k <= n_layers:
        raise ConfigError(
            f"last_k is {last_k}; the model {model!r} has {n_layers} layers of states, the token "
            "table's included"
        )
    backend.enable_truncation(max_tokens, direction="right")

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}; give auto, cpu, or "
            "a device that torch has here, such as cuda"
        ) from None
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    kind = f"{device.partition(':')[0]}/{str(dtype).removeprefix('torch.')}"
    how = f"last_{last_k}" if pooling == "last_k" else pooling
    return Network(
        model=network.to(device=device, dtype=dtype),
        tokenizer=backend,
        device=device,
        pooling=pooling,
        last_k=last_k,
        max_tokens=max_tokens,
        positions=positions,
        n_tokens=network.get_input_embeddings().num_embeddings,
        pad=pad,
        dimension=int(_hidden_states(network)[-1].shape[-1]),
        identity=f"huggingface-1 {digest} pooling={how} max_tokens={max_tokens} {kind}",
    )


def find_model(model: str) -> str:
    """A folder for `package:NAME[:FOLDER]` and for a path, else the name as it is.

    A package is looked up and not imported, so none of its code runs.

    Raises:
        ConfigError: there is no such package, or not one folder with a model in it.
    """
    if not model.startswith("package:"):
        path = Path(model).expanduser()
        return str(path) if path.is_dir() else model
    name, _, folder = model.removeprefix("package:").partition(":")
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    if not roots:
        raise ConfigError(f"{model!r}: no package {module!r} is installed; pip install {name}")
    found = sorted(
        path.parent
        for root in roots
        for path in (root / folder).glob("config.json" if folder else "**/config.json")
        if any(path.parent.glob("*.safetensors"))
    )
    if len(found) != 1:
        what = ", ".join(str(path.relative_to(roots[0])) for path in found) or "none"
        raise ConfigError(
            f"{model!r}: a folder with config.json and weights in safetensors is looked for in "
            f"the package; found: {what}; name one as package:NAME:FOLDER"
        )
    return str(found[0])


def _positions(config: Any, tokenizer: Any) -> int | None:
    """How many positions a text may take, by model and tokenizer; None where neither says."""
    bounds = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    # A tokenizer without a bound of its own says 10^30.
    known = [int(b) for b in bounds if isinstance(b, int | float) and 0 < b < 1e9]
    return min(known, default=None)


def _hidden_states(network: Any) -> Sequence[Any]:
    """The states of one short text, layer by layer, the token table's first."""
    import torch

    ids = torch.zeros((1, 2), dtype=torch.int64, device=network.device)
    with torch.inference_mode():
        out = network(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    return out.hidden_states


def _digest(network: Any, backend: Any, config: Mapping[str, Any]) -> str:
    """32 hex digits over weights, vocabulary, what the tokenizer does, and configuration."""
    digest = blake2b(digest_size=16)
    said = {key: value for key, value in config.items() if key not in _IRRELEVANT}
    vocabulary = sorted(backend.get_vocab().items())
    tried: list[Any] = [encoding.ids for encoding in backend.encode_batch_fast(list(_PROBES))]
    # A small vocabulary knows none of these words, and shows nothing of what is done to them.
    if backend.normalizer is not None:
        tried += [backend.normalizer.normalize_str(text) for text in _PROBES]
    if backend.pre_tokenizer is not None:
        tried += [backend.pre_tokenizer.pre_tokenize_str(text) for text in _PROBES]
    digest.update(json.dumps([said, vocabulary, tried], sort_keys=True, default=str).encode())
    for name, tensor in sorted(network.state_dict().items()):
        if "pooler" not in name:
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without the bar that transformers draws on stderr while it reads weights."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
