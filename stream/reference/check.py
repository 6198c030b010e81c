"""Whether references suit driftline.yaml, and each other."""

from __future__ import annotations

from collections.abc import Mapping

from ...detectors.base import plan_of
from ...detectors.looking import tests_of
from ...detectors.multivariate import why_not
from ...detectors.profile import Profile, column_kind
from ...schemas.errors import ProfileError
from ...schemas.units import format_duration, iso_ms
from .. import profiles
from ..config.document import Config, ModelConfig
from ..profiles import Reference


def references(config: Config) -> dict[str, Reference]:
    """The reference of every model, with all that were promoted after it.

    Raises:
        ProfileError: one is missing, or does not fit the configuration.
    """
    found: dict[str, Reference] = {}
    for name, model in config.models.items():
        reference = profiles.load(model.reference, name)
        for era in reference.eras:
            check(model, era)
            _check_edges(model, era)
        found[name] = reference
    return found


def said(known: Mapping[str, Reference]) -> str:
    """References in a line of a log."""
    return "; ".join(
        f"{name}: {', then '.join(r.id[:12] for r in reference.eras)}"
        for name, reference in known.items()
    )


def check(model: ModelConfig, reference: Reference, place: str | None = None) -> None:
    """Whether a reference is for what the configuration asks for.

    Args:
        place: where it lies, None for the configured one.

    Raises:
        ProfileError: it is not; says in what they differ.
    """
    name = model.name
    where = f"the reference of model {name!r} at {place or model.reference!r}"
    named = set() if model.features == "auto" else set(model.features)
    if named | set(model.vectors):
        missing = (named | set(model.vectors)) - set(reference.whole.names)
        if missing:
            raise ProfileError(
                f"{where} has no feature {', '.join(sorted(missing))}, which `features` names; fit "
                "it again with `driftline fit`"
            )
    for f in reference.whole.vectors:
        if model.vectors.get(f.name) != f.spec:
            raise ProfileError(
                f"{where} was fitted with other settings of {f.name!r} than driftline.yaml has "
                "now; fit it again with `driftline fit`"
            )
    whole = reference.whole
    unknown = whole.multivariate is None and why_not(whole.n_numeric, whole.n_rows) is None
    if model.detectors_for("multivariate") and unknown:
        raise ProfileError(
            f"{where} does not say how numeric features go together, which `detectors.multivariate` "
            "tests: it was fitted by a version that did not note it; fit it again with `driftline "
            "fit`, or write multivariate: []"
        )
    # A stored segment has no order of keys.
    fitted = {key for segment, _ in reference.units.values() for key in segment}
    fitted.update(reference.segment_by or ())
    if (fitted or reference.segment_by is not None) and fitted != set(model.segment_by):
        raise ProfileError(
            f"{where} was fitted by segments of {', '.join(sorted(fitted)) or 'nothing'}, and "
            "`segment_by` is "
            f"[{', '.join(model.segment_by)}]; fit it again with `driftline fit`"
        )
    if model.false_alarms is not None:
        _check_budget(model, reference, where)


def check_alike(old: Profile, new: Profile, place: str) -> None:
    """Whether events can be summarised against both: they have the same features.

    Raises:
        ProfileError: they have not; says which.
    """
    before = {f.name: column_kind(f) for f in old.features}
    after = {f.name: column_kind(f) for f in new.features}
    if before != after:
        gone = sorted(before.keys() - after.keys())
        come = sorted(after.keys() - before.keys())
        changed = sorted(
            f"{n} ({after[n]}, not {before[n]})"
            for n in before.keys() & after.keys()
            if before[n] != after[n]
        )
        said = [
            f"{what} {', '.join(names)}"
            for what, names in (
                ("lacks", gone),
                ("also has", come),
                ("has other kinds of", changed),
            )
            if names
        ]
        raise ProfileError(
            f"the reference at {place!r} {' and '.join(said)}, compared with the one in force; one "
            "that takes over has the same features: name them with their kinds in `features` when "
            "fitting, or fit to a new place and name that in `reference`"
        )
    for a, b in zip(old.vectors, new.vectors, strict=True):
        if a.encoder != b.encoder or a.dimension_in != b.dimension_in:
            raise ProfileError(
                f"the reference at {place!r} has other vectors of {a.name!r} (of {b.dimension_in} "
                f"numbers, by {b.encoder or 'the events'}) than the one in force (of "
                f"{a.dimension_in}, by {a.encoder or 'the events'}); an event has one: fit with the "
                "same encoder, or fit to a new place and name that in `reference`"
            )


def _check_edges(config: ModelConfig, reference: Reference) -> None:
    for ms in (reference.era.since_ms, reference.era.from_ms):
        if ms is not None and ms % config.pane_ms:
            raise ProfileError(
                f"model {config.name!r}: a reference takes over at {iso_ms(ms)}, which is no border "
                f"of panes of {format_duration(config.pane_ms)}; keep `pane` as it was, or fit to a "
                "new place and name that in `reference`"
            )


def _check_budget(config: ModelConfig, reference: Reference, where: str) -> None:
    """Whether the reference's calibration is for what the configuration asks for.

    Raises:
        ProfileError: there is none, or it is for other windows, detectors or panes.
    """
    assert config.false_alarms is not None
    budget, asked = reference.budget, config.false_alarms.label
    if budget is None:
        raise ProfileError(
            f"{where} was fitted without `false_alarms`, which the configuration asks for; "
            "run `driftline fit` again"
        )
    if budget.false_alarms != asked:
        raise ProfileError(
            f"{where} was calibrated for `false_alarms: {budget.false_alarms}`, and the "
            f"configuration asks for {asked}; run `driftline fit` again"
        )
    if budget.pane_ms != config.pane_ms:
        raise ProfileError(
            f"{where} was calibrated for panes of {format_duration(budget.pane_ms)}, and `pane` is "
            f"{format_duration(config.pane_ms)}; run `driftline fit` again"
        )
    if (budget.earlier_panes is None) != (config.against is None):
        said = (
            "the whole of `false_alarms`, and tests against earlier parts of the stream need half"
        )
        if config.against is None:
            said = "half of `false_alarms`, the other was for tests against earlier parts of the stream"
        raise ProfileError(
            f"{where} was calibrated for {said} (`against`); run `driftline fit` again"
        )
    for key, (_, profile) in reference.units.items():
        wanted = tests_of(profile, plan_of(profile, config.detectors_for), config.windows)
        found = budget.units.get(key)
        if not profile.counted:
            continue
        if found is None or found.profile != profile.id:
            raise ProfileError(
                f"{where} was calibrated on other rows than its own; run `driftline fit` again"
            )
        levels = set(found.levels)
        if wanted != levels:
            feature, name, size = min(wanted ^ levels)
            raise ProfileError(
                f"{where} was calibrated for other windows or detectors than the configuration "
                f"names ({name} of {feature} in {size}, for one); run `driftline fit` again"
            )
