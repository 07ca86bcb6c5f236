"""What all tests of networks share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """Networks are initialised from torch's global generator; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
