"""driftline's detectors: arrays in, arrays out; no clock, no log, no file, no broker.

fit(reference columns)        -> Profile   what is compared with
summarize(profile, columns)   -> Panes     mergeable, next to the data
WindowBank.push(pane)         -> Windows   several sizes over the same panes
Detector.test(profile, windows) -> Outcomes
"""

from .base import Detector, Effect, Outcome, detectors
from .fitting import LeftOut, fit, infer_kind
from .mmd import mmd_permutation_test
from .online_mmd import OnlineMMD
from .panes import Columns, OpenPane, Pane, merge, summarize
from .profile import (
    CategoricalProfile,
    Kind,
    NumericProfile,
    Profile,
    category_name,
)
from .windows import Window, WindowBank

__all__ = [
    "CategoricalProfile",
    "Columns",
    "Detector",
    "Effect",
    "Kind",
    "LeftOut",
    "NumericProfile",
    "OnlineMMD",
    "OpenPane",
    "Outcome",
    "Pane",
    "Profile",
    "Window",
    "WindowBank",
    "category_name",
    "detectors",
    "fit",
    "infer_kind",
    "merge",
    "mmd_permutation_test",
    "summarize",
]
