"""Reference profiles on disk: a directory or fsspec URL with two files.

    profile.json          what was fitted, from what, and the metadata of every unit
    profile.safetensors   the arrays

The id of a unit's profile is a digest of its content, so files that were changed are noticed. Those
promoted later lie in directories beside the two, and `history.json` says since when each holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
import orjson
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ..detectors.levels import Calibration
from ..detectors.profile import Profile
from ..schemas.errors import ProfileError
from ..schemas.verdict import digest, unit_key
from .reference.history import Era, History, place_of
from .reference.history import read as read_history

FORMAT = 1


@dataclass(frozen=True)
class Budget:
    """The budget of false alarms that a reference was calibrated for, and what was found.

    false_alarms: as in driftline.yaml. pane_ms: length of a pane. events_per_hour: of the model.
    units: unit key → the levels of its tests. earlier_panes: panes of a unit in which its tests against
    earlier parts of the stream may alarm once, together; None where there are none.
    """

    false_alarms: str
    pane_ms: int
    events_per_hour: float
    units: Mapping[str, Calibration]
    earlier_panes: float | None = None

    @property
    def caveats(self) -> list[tuple[str, str]]:
        """(unit key, sentence): why its levels are an attempt and no promise; none where all keep it."""
        return [(key, c) for key, found in sorted(self.units.items()) for c in found.caveats]

    def to_json(self) -> dict[str, Any]:
        # Left out where there is nothing to say, so that the ids of such references do not change.
        earlier = {} if self.earlier_panes is None else {"earlier_panes": self.earlier_panes}
        return {
            "false_alarms": self.false_alarms,
            "pane_ms": self.pane_ms,
            "events_per_hour": self.events_per_hour,
            **earlier,
            "units": {key: found.to_json() for key, found in sorted(self.units.items())},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Budget:
        units = {key: Calibration.from_json(found) for key, found in data["units"].items()}
        earlier = data.get("earlier_panes")
        return Budget(
            str(data["false_alarms"]),
            int(data["pane_ms"]),
            float(data["events_per_hour"]),
            units,
            None if earlier is None else float(earlier),
        )


@dataclass(frozen=True)
class Reference:
    """The profiles of one model: the whole of it, and one per segment.

    units: unit key → (segment, profile); the whole model's key is the model's name alone.
    source: where the rows came from, for people. segment_by: as in driftline.yaml, None where it was not
    noted: segments of too few rows leave no other trace.
    budget: the levels that keep a budget of false alarms, None where none was asked for.
    era: when it is in force. later: those that take over from it, in order of time.
    history: what was written down about that, None where there is one reference for ever.
    """

    model: str
    units: Mapping[str, tuple[Mapping[str, str], Profile]]
    source: Mapping[str, Any] = field(default_factory=dict)
    segment_by: tuple[str, ...] | None = None
    budget: Budget | None = None
    era: Era = Era()  # noqa: RUF009  (frozen)
    later: tuple[Reference, ...] = ()
    history: History | None = None

    @property
    def whole(self) -> Profile:
        return self.units[unit_key(self.model, {})][1]

    @property
    def id(self) -> str:
        """Of what it decides by: the profiles of all units, and their levels."""
        profiles = sorted((key, profile.id) for key, (_, profile) in self.units.items())
        return digest("reference", profiles, None if self.budget is None else self.budget.to_json())

    @property
    def eras(self) -> tuple[Reference, ...]:
        """This one and all that take over from it, each with its own era."""
        return (self, *self.later)

    @property
    def current(self) -> Reference:
        """The last of them, as if it had always been in force."""
        return replace(self.eras[-1], era=Era(), later=(), history=None)


def save(reference: Reference, url: str) -> None:
    """Write a reference; an existing one at the same place is replaced.

    Raises:
        ProfileError: the place cannot be written to.
    """
    units: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {}
    for i, (key, (segment, profile)) in enumerate(sorted(reference.units.items())):
        meta, own = profile.to_parts()
        units.append({"key": key, "segment": dict(segment), "id": profile.id, **meta})
        arrays |= {f"{i}/{name}": array for name, array in own.items()}
    document = {
        "format": FORMAT,
        "model": reference.model,
        "source": dict(reference.source),
        "units": units,
    }
    if reference.segment_by is not None:
        document["segment_by"] = list(reference.segment_by)
    if reference.budget is not None:
        document["budget"] = reference.budget.to_json()
    try:
        fs, path = fsspec.core.url_to_fs(url)
        fs.makedirs(path, exist_ok=True)
        fs.pipe_file(f"{path}/profile.safetensors", save_arrays(arrays))
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        fs.pipe_file(f"{path}/profile.json", text + b"\n")
    except (OSError, ValueError, ImportError) as error:
        raise ProfileError(f"cannot write the reference to {url!r}: {error}") from error


def unused(url: str) -> str:
    """The place, if a new reference may be written there.

    Raises:
        ProfileError: others were promoted after the one that lies there, and rest on it.
    """
    if read_history(url) is not None:
        raise ProfileError(
            f"the reference at {url!r} has been in force and others were promoted after it; fit to "
            "another place with `driftline fit --out NEW`, then `driftline reference promote NEW`"
        )
    return url


def load(url: str, model: str) -> Reference:
    """Read the reference of `model`, with all that were promoted after it.

    Raises:
        ProfileError: there is none, it belongs to another model, or it was changed since it was
            written.
    """
    history = read_history(url)
    if history is None:
        return load_one(url, model)
    found: list[Reference] = []
    for entry, era in zip(history.entries, history.eras(), strict=True):
        place = place_of(url, entry.place)
        one = load_one(place, model)
        if one.id != entry.id:
            raise ProfileError(
                f"the reference at {place!r} has id {one.id}, and the history at {url!r} knows it "
                f"as {entry.id}: it was fitted again after it had been in force; restore it, or "
                "fit to a new place and name that in `reference`"
            )
        found.append(replace(one, era=era))
    return replace(found[0], later=tuple(found[1:]), history=history)


def load_one(url: str, model: str) -> Reference:
    """Read the reference that `driftline fit` wrote to a place, whatever was promoted after it.

    Raises:
        ProfileError: see `load`.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
        document = orjson.loads(fs.cat_file(f"{path}/profile.json"))
        arrays = load_arrays(fs.cat_file(f"{path}/profile.safetensors"))
    except FileNotFoundError:
        raise ProfileError(
            f"there is no reference profile at {url!r}; make it with `driftline fit`"
        ) from None
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ProfileError(f"cannot read the reference profile at {url!r}: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else document
        raise ProfileError(
            f"the reference at {url!r} is of format {found!r}, this version reads "
            f"{FORMAT}; fit it again with `driftline fit`"
        )
    try:
        return _reference(document, arrays, url, model)
    except (KeyError, TypeError, AttributeError) as error:
        raise ProfileError(
            f"the reference at {url!r} is damaged ({type(error).__name__}: {error}); fit it again "
            "with `driftline fit`"
        ) from error


def _reference(
    document: Mapping[str, Any], arrays: Mapping[str, Any], url: str, model: str
) -> Reference:
    if document["model"] != model:
        raise ProfileError(
            f"the reference at {url!r} was fitted for model {document['model']!r}, not {model!r}; "
            "give each model a `reference` of its own"
        )
    units: dict[str, tuple[Mapping[str, str], Profile]] = {}
    for i, entry in enumerate(document["units"]):
        prefix = f"{i}/"
        own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        profile = Profile.from_parts(entry, own)
        if profile.id != entry["id"] or entry["key"] != unit_key(model, entry["segment"]):
            raise ProfileError(
                f"the reference at {url!r} was changed after it was written (unit {entry['key']!r} "
                f"says {entry['id']}, its content is {profile.id}); fit it again"
            )
        units[entry["key"]] = (entry["segment"], profile)
    if unit_key(model, {}) not in units:
        raise ProfileError(
            f"the reference at {url!r} has no profile of the whole model; fit it again with "
            "`driftline fit`"
        )
    said = document.get("budget")
    budget = None if said is None else Budget.from_json(said)
    keys = document.get("segment_by")
    segment_by = None if keys is None else tuple(keys)
    return Reference(model, units, document.get("source", {}), segment_by, budget)
