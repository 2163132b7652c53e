#!/usr/bin/env bash
# libtpu 0.0.42.1, jax 0.10.2 (topologies.get_topology_desc), on Linux with x86-64, without a TPU:
# libtpu compiles only
#
# Expected: to describe a slice of TPUs and compile for it needs no TPU and takes none from others.
# So many processes may do so at once, as they may compile for CPUs: the workers of a parallel test
# suite, or those of a sweep over slices.
#
# What happens: the first process to describe a slice holds a lock of the whole machine until it
# ends. All others fail with an "internal error" that asks for sudo to delete the lock file. The
# file is no leftover: its owner is alive, and if the owner ends, even by kill -9, the next process
# works without any deletion. Whether an error occurs depends on the timing alone. A remedy is
# ALLOW_MULTIPLE_LIBTPU_LOAD=1, set before libtpu loads: such a process compiles the same program
# beside the owner of the lock and does not take it. The message does not mention it.
#
# Why it matters: (1) Tests of a compile-only tool pass one by one and fail in parallel. (2) Names
# of slices that do not exist raise errors from the same call, so a program that catches them
# reports a good name as unknown whenever another one is compiling. (3) On a machine with TPUs the
# lock has a purpose; who has learnt to delete it does so there, too.
#
# Seen:
#   first process: compiled
#   second, at the same time: ABORTED: Internal error when accessing libtpu multi-process lockfile.
#     Run "$ sudo rm /tmp/libtpu_lockfile".
#   second, ALLOW_MULTIPLE_LIBTPU_LOAD=1: compiled, the same program
#   second, after the first was killed: compiled, the same program
#   second, beside a first with ALLOW_MULTIPLE_LIBTPU_LOAD=1: compiled, the same program
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    'jax==0.10.2' 'jaxlib==0.10.2' 'libtpu==0.0.42.1' 'numpy==2.4.6'

# libtpu looks for no TPU and asks no server
export TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost TPU_ACCELERATOR_TYPE=v5litepod-4
export TPU_LOG_DIR=disabled TPU_MIN_LOG_LEVEL=3 TPU_STDERR_LOG_LEVEL=3 JAX_PLATFORMS=cpu
unset ALLOW_MULTIPLE_LIBTPU_LOAD

"$folder/venv/bin/python" -I - <<'EOF'
import contextlib
import os
import subprocess
import sys

COMPILE = """
import sys, zlib
import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
x = jax.ShapeDtypeStruct((128, 128), "float32", sharding=SingleDeviceSharding(device))
print(zlib.crc32(jax.jit(lambda x: x @ x).lower(x).compile().as_text().encode()), flush=True)
sys.stdin.read()
"""
COMMAND = [sys.executable, "-I", "-c", COMPILE]
ALLOW = os.environ | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@contextlib.contextmanager
def first(env):
    """A process that has compiled and lives until the end of the block, where it is killed."""
    with subprocess.Popen(
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        program = process.stdout.readline().strip()
        if not program:
            sys.exit("The first process failed: does another one hold the lock?")
        yield program
        process.kill()


def second(name, env, program):
    done = subprocess.run(COMMAND, input="", capture_output=True, text=True, env=env)
    if done.returncode:
        error = done.stderr.strip().splitlines()[-1]
        print(f"second, {name}: {error.removeprefix('jax.errors.JaxRuntimeError: ')}")
        return error
    assert done.stdout.strip() == program, (done.stdout, program)
    print(f"second, {name}: compiled, the same program")
    return None


with first(os.environ) as program:
    print("first process: compiled")
    error = second("at the same time", os.environ, program)
    assert error and "Internal error" in error and "sudo rm" in error, error
    assert second("ALLOW_MULTIPLE_LIBTPU_LOAD=1", ALLOW, program) is None
assert second("after the first was killed", os.environ, program) is None
with first(ALLOW) as program:
    name = "beside a first with ALLOW_MULTIPLE_LIBTPU_LOAD=1"
    assert second(name, os.environ, program) is None
EOF
