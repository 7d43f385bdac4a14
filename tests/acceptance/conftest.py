"""One studio for all tests of this suite that leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.support.studio import Studio, deployed_studio


@pytest.fixture(scope="session")
def studio() -> Iterator[Studio]:
    """A running studio. Only tests of the group ``studio`` use it, so that one worker has one."""
    with deployed_studio() as running:
        yield running
