"""What a backend that is not here, or not for the suite's device, means for a test."""

import pytest


def skip_unless_served(call):
    """Skips where the backend that ``call`` asks for by name cannot serve it; other errors stay."""
    try:
        call()
    except RuntimeError as error:
        if "cannot serve" not in str(error):
            raise
        pytest.skip(str(error))
