"""One thread and a quiet environment for every test."""

import os
import random

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402


def pytest_configure():
    """Leave the other cores alone; doctests outside tests/ are covered as well."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Let no test depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
