"""What a worker's services raise when the run is not theirs any more."""


class ClaimLostError(Exception):
    """The run was given to another worker, was ended by someone else, or was deleted. Nothing was written."""

    def __init__(self, run_id: str, claim: int) -> None:
        super().__init__(f"claim {claim} does not own {run_id} any more")
        self.run_id = run_id
        self.claim = claim
