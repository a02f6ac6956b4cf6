"""Settings of all tests: patience with busy machines, and with processors that lack bfloat16."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """PyTorch has no LSTM in bfloat16 for processors without AVX-512."""
    try:
        return (yield)
    except RuntimeError as error:
        if "primitive descriptor for the LSTM" in str(error):
            pytest.skip("this processor has no LSTM in bfloat16")
        raise
