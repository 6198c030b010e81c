"""Options that commands share, and what is chosen by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .config.document import Config

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration file.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for machines.")]
DEFAULT_CONFIG = Path("driftline.yaml")


def load_config(path: Path) -> Config:
    # Imported late, as all that a command needs: `--help` stays quick.
    from .config.document import load

    return load(path)


def models_of(config: Config, only: str | None) -> list[str]:
    """All models, or the one named."""
    if only is None:
        return list(config.models)
    if only not in config.models:
        raise typer.BadParameter(
            f"{only!r} is not a model of the configuration; there are {', '.join(config.models)}"
        )
    return [only]


def model_of(config: Config, only: str | None) -> str:
    """The only model, or the one named, of a command that works on one."""
    chosen = models_of(config, only)
    if len(chosen) > 1:
        raise typer.BadParameter(
            f"the file has several models ({', '.join(chosen)}); choose with --model"
        )
    return chosen[0]
