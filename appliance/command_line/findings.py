"""What a check of `onward check` has found."""

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """Mail flows, and something should be put right all the same."""
    FAULT = "fault"
    """Mail would not flow."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found."""

    grade: Grade
    check: str
    detail: str
    advice: str = ""
    """What to do; empty where there is nothing to do."""
