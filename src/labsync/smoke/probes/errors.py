"""The one exception of the probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..troubles import Finding


class ProbeError(Exception):
    """The model cannot be run; the text is a sentence for the person, `trouble` its kind.

    `cure` is empty where the kind's own is right.
    """

    def __init__(self, cause: str, trouble: str, cure: str = "") -> None:
        super().__init__(cause)
        self.trouble = trouble
        self.cure = cure

    @classmethod
    def of(cls, finding: Finding) -> ProbeError:
        """Return the error of a finding."""
        return cls(finding.cause, finding.trouble, finding.cure)
