from types import SimpleNamespace

import pytest

from experiments import backends

LENET = 13 * 266_610  # weights, two moments and a mask
LENET_MASKS = 16 * 266_610  # logits, momentum, frozen weights, and these under a mask
CONV2 = 13 * 4_301_642


def device(kind, platform="tpu"):
    return SimpleNamespace(platform=platform, device_kind=kind)


@pytest.mark.parametrize(
    ("kind", "members", "size", "expected"),
    [
        ("TPU v5 lite", 1, LENET, 1),
        ("TPU v5 lite", 24, LENET, 24),
        ("TPU v5 lite", 48, LENET, 24),
        ("TPU v5 lite", 45, LENET, 23),  # two turns of about the same size
        ("TPU v5 lite", 48, LENET_MASKS, 16),
        ("TPU v6 lite", 48, LENET, 24),
        ("TPU7x", 48, LENET, 16),
        ("TPU v5 lite", 8, CONV2, 1),
        ("TPU v5", 48, LENET, 48),
        ("TPU v4", 48, LENET, 48),
        ("TPU v5", 8, CONV2, 1),
        ("NVIDIA H100 80GB HBM3", 48, LENET, 48),
    ],
)
def test_a_device_trains_as_many_members_at_once_as_its_memory_on_chip_holds(
    kind, members, size, expected
):
    assert backends.members_at_once(device(kind), members, size) == expected


def test_a_cpu_trains_one_member_after_the_other():
    assert backends.members_at_once(device("cpu", "cpu"), 48, LENET) == 1
