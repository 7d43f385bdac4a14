"""What ``doctor`` finds on a machine. Pure values."""

from dataclasses import dataclass, field

from mistudio_ops.domain.check import Finding, Status


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One finding about the machine. A failure prevents a deploy; a warning takes something away."""

    name: str
    status: Status
    evidence: str
    hint: str | None = None

    @classmethod
    def of(cls, name: str, finding: Finding) -> "Diagnosis":
        """Return ``finding`` under a name."""
        return cls(name, finding.status, finding.evidence, finding.hint)


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings about one machine, for one environment."""

    environment: str
    diagnoses: tuple[Diagnosis, ...]
    deployable: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "deployable", all(one.status is not Status.FAIL for one in self.diagnoses))
