#!/usr/bin/env bash
# ml-collections 1.1.0 (config_flags), absl-py 2.5.1
#
# Expected: of two overrides of one setting the last counts. This is absl's rule for flags that hold
# one value, and config_flags follows it for numbers, strings and booleans. So a script may hold a
# command with its defaults, and pass on what its user appends: run --config.seeds=0 "$@".
#
# What happens: the values of a setting that is a tuple are joined. The first override replaces the
# tuple of the configuration file; every later one is added to it, in either way of writing. There is
# no error and no warning, and the result is a legal setting.
#
# Why it matters: a sweep lists its seeds, densities, layers to prune or learning rates in tuples. A
# job that is started again "with seed 1 alone" trains seed 0, too; a table that counts on one value
# per job, or that takes the first, mixes them up.
#
# Seen:
#   nothing: seeds (0, 1, 2), epochs 3
#   once: seeds (7,), epochs 5
#   twice: seeds (7, 8), epochs 6
#   twice, as tuples: seeds (7, 8, 9), epochs 6
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'ml-collections==1.1.0' 'absl-py==2.5.1'

cat > "$folder/sweep.py" <<'EOF'
from ml_collections import ConfigDict


def get_config():
    return ConfigDict({"seeds": (0, 1, 2), "epochs": 3})
EOF

cd "$folder"
"$folder/venv/bin/python" -I - <<'EOF'
from absl import flags
from ml_collections import config_flags


def settings(*words):
    values, argv = flags.FlagValues(), ["run", "--config=sweep.py", *words]
    config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return config.value.seeds, config.value.epochs


seen = {
    "nothing": settings(),
    "once": settings("--config.seeds=7", "--config.epochs=5"),
    "twice": settings(
        "--config.seeds=7", "--config.epochs=5", "--config.seeds=8", "--config.epochs=6"
    ),
    "twice, as tuples": settings(
        "--config.seeds=(7,)", "--config.epochs=5", "--config.seeds=(8,9)", "--config.epochs=6"
    ),
}
assert seen == {
    "nothing": ((0, 1, 2), 3),
    "once": ((7,), 5),
    "twice": ((7, 8), 6),
    "twice, as tuples": ((7, 8, 9), 6),
}, seen
for case, (seeds, epochs) in seen.items():
    print(f"{case}: seeds {seeds}, epochs {epochs}")
EOF
