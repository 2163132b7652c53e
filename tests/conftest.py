"""Shared fixtures, and JAX on four simulated CPU devices."""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)

# Many tests run the same small experiments; the cache lets their processes share the compilation.
PROGRAMS = Path(tempfile.gettempdir()) / (
    f"supermask_jax_{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
)
jax.config.update("jax_compilation_cache_dir", str(PROGRAMS))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):  # set on workers of xdist only
        shutil.rmtree(PROGRAMS, ignore_errors=True)


hypothesis.settings.register_profile(
    "library",
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("library")

COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compilations():
    """A list that grows by one with every program that XLA compiles during the test."""
    seen = []

    def listener(event, duration, **kwargs):
        if event == COMPILE_EVENT:
            seen.append(kwargs.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listener)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listener)
