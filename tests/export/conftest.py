from collections.abc import Iterator

import pytest
from jaxtyping import config


@pytest.fixture(autouse=True)
def unchecked_shapes() -> Iterator[None]:
    """Checks of shapes would become conditions of a traced program."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
