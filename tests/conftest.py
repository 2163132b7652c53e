"""Shared fixtures, and JAX on four simulated CPU devices."""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs run once: XLA takes half the time to compile them if it does not optimize.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no test depends on what XLA prints

import hypothesis
import jax
import pytest
from jax._src import compiler

collect_ignore = ["torch_files/make.py"]  # needs PyTorch

UNOPTIMIZED = jax.config.read("jax_disable_most_optimizations")
# It takes less than half of that again if it does not use MLIR to generate the code of fusions.
EMITTERS = "xla_cpu_use_fusion_emitters"
if UNOPTIMIZED:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{EMITTERS}=false"

# All processes of a test session share one folder, also those that tests start: no process
# compiles again what another has compiled. The first process makes the folder and removes it.
IS_FIRST = "SUPERMASK_JAX_TESTS" not in os.environ
SHARED = Path(os.environ.get("SUPERMASK_JAX_TESTS") or tempfile.mkdtemp(prefix="supermask_jax_"))
os.environ["SUPERMASK_JAX_TESTS"] = str(SHARED)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(SHARED / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# JAX does not write programs atomically: it warns of one that is half written, and compiles it.
os.environ.setdefault(
    "PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning"
)

# JAX has read the environment of this process already.
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_num_cpu_devices", 4)


def pytest_sessionfinish(session):
    if IS_FIRST:
        shutil.rmtree(SHARED, ignore_errors=True)


hypothesis.settings.register_profile(
    "library",
    deadline=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("library")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """XLA optimizes the programs of a test that is marked as optimized as it does for users."""
    unoptimized = UNOPTIMIZED and not item.get_closest_marker("optimized")
    if unoptimized != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", unoptimized)
        jax.clear_caches()


_get_compile_options = compiler.get_compile_options


def get_compile_options(*args, **options):
    """Undo `XLA_FLAGS`, which hold for a whole process, for a test that is marked as optimized."""
    found = _get_compile_options(*args, **options)
    if UNOPTIMIZED and not jax.config.read("jax_disable_most_optimizations"):
        found.env_option_overrides = [*found.env_option_overrides, (EMITTERS, True)]
    return found


compiler.get_compile_options = get_compile_options


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
