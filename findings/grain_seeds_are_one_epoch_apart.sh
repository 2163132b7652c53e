#!/usr/bin/env bash
# grain 0.2.18 (MapDataset.shuffle, DataLoader with IndexSampler), numpy 2.4.6, on the CPU
#
# Expected: runs with the seeds 0, 1, 2, ... see the data in unrelated orders, so their spread shows
# what the order does. The docstring of MapDataset.shuffle says that each epoch is shuffled
# differently, as the seed is "combined with epoch number", but not how; that of IndexSampler calls
# its seed just "seed for shuffling the dataset".
#
# What happens: the two are added. Epoch e of seed s has the order of epoch e - 1 of seed s + 1. So
# five runs of ten epochs with the seeds 0 to 4 have 14 orders in place of 50. IndexSampler, the
# sampler of DataLoader, shuffles in the same way, and adds the seed to the place of the record for
# the generator that random augmentations take: the record at place i gets the numbers that seed
# s + 1 has at place i - 1. There is no warning. Fixes: MapDataset.seed(s).shuffle(), which hashes
# s, or seeds that are further apart than the epochs, and with random augmentations further apart
# than the records of all epochs.
#
# Why it matters: tickets are judged by a handful of runs with consecutive seeds. In SGD with a
# constant rate, the last epochs decide which way a network wanders around the minimum: two seeds
# follow one path, one epoch apart, from different initial weights. An experiment that asks how
# stable a network is to the order of the data (linear mode connectivity, masks that agree between
# seeds) compares runs that mostly have the same orders.
#
# Seen, for 100 records, 10 epochs and the seeds 0 to 4:
#   shuffle(seed=s): 14 orders; IndexSampler(seed=s): 14 orders; seed(s).shuffle(): 50 orders
#   random numbers of the first 4 records, seed 0: 3 45 45 86
#   random numbers of the first 4 records, seed 1: 45 45 86 31
#   SGD from other weights: epoch 10 of seed 0 and of seed 1 differ by 2.1e-01,
#   epoch 10 of seed 0 and epoch 9 of seed 1 by 2.2e-13
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'grain==0.2.18' 'numpy==2.4.6'

"$folder/venv/bin/python" -I - <<'EOF'
import grain.python as grain
import numpy as np

RECORDS, EPOCHS, SEEDS = 100, 10, range(5)
records = grain.MapDataset.range(RECORDS)


def explicit(seed):
    return records.shuffle(seed=seed).repeat(EPOCHS)


def derived(seed):
    return records.seed(seed).shuffle().repeat(EPOCHS)


def sampler(seed):
    return grain.IndexSampler(RECORDS, shuffle=True, num_epochs=EPOCHS, seed=seed)


def orders(seed, make):
    source = make(seed)
    steps = [source[i] for i in range(RECORDS * EPOCHS)]
    keys = [getattr(step, "record_key", step) for step in steps]
    return np.array(keys).reshape(EPOCHS, RECORDS)


found = {}
for make in (explicit, sampler, derived):
    found[make] = [orders(seed, make) for seed in SEEDS]
    for order in found[make]:
        assert np.array_equal(np.sort(order), np.tile(np.arange(RECORDS), (EPOCHS, 1)))
distinct = {make: len({o.tobytes() for run in runs for o in run}) for make, runs in found.items()}
print(
    f"shuffle(seed=s): {distinct[explicit]} orders; IndexSampler(seed=s): {distinct[sampler]} "
    f"orders; seed(s).shuffle(): {distinct[derived]} orders"
)
assert list(distinct.values()) == [14, 14, 50], distinct
for make in (explicit, sampler):
    for run, following in zip(found[make], found[make][1:]):
        assert np.array_equal(run[1:], following[:-1])

# What a random augmentation draws, one number for each record
drawn = []
for seed in (0, 1):
    source = sampler(seed)
    drawn.append([int(source[i].rng.integers(100)) for i in range(RECORDS)])
    head = " ".join(map(str, drawn[-1][:4]))
    print(f"random numbers of the first 4 records, seed {seed}: {head}")
assert drawn[0][1:] == drawn[1][:-1] and drawn[0] != drawn[1]

# Least squares by SGD, record by record; the seed sets the initial weights, too
data = np.random.default_rng(7)
inputs, noise = data.normal(size=(RECORDS, 4)), data.normal(size=RECORDS)
targets = inputs.sum(1) + noise


def train(seed):
    w = np.random.default_rng(seed).normal(size=4)
    after = []
    for order in found[explicit][seed]:
        for i in order:
            w = w - 0.05 * (inputs[i] @ w - targets[i]) * inputs[i]
        after.append(w)
    return after


first, second = train(0), train(1)
same = np.abs(first[9] - second[9]).max()
shifted = np.abs(first[9] - second[8]).max()
print(f"SGD from other weights: epoch 10 of seed 0 and of seed 1 differ by {same:.1e},")
print(f"epoch 10 of seed 0 and epoch 9 of seed 1 by {shifted:.1e}")
assert same > 1e-2 and shifted < 1e-9, (same, shifted)
EOF
