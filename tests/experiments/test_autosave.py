"""Trainings that stop at a chunk boundary and resume."""

import itertools
import signal

import jax
import numpy as np
import pytest

from experiments import stopping
from experiments.runners import learned
from experiments.runners.registry import read_table
from experiments.stopping import Stopped
from experiments.storage.autosave import Autosave
from supermask_jax import population
from supermask_jax.training import Stream
from tests.experiments import command_lines, tiny
from tests.experiments.test_trainer import MEMBERS, SEEDS, STEPS, dataset, make_params, make_trainer

__all__ = ["dataset"]
NUM_CHUNKS = 3  # five evaluations in chunks of two


class StoppingAutosave(Autosave):
    """Saves at every chunk boundary and stops after some chunks."""

    def __init__(self, workdir, chunks):
        super().__init__(tiny.folder(workdir), "own", save_every=0)
        self.left = chunks

    def save_if_due(self, *arguments, **options):
        super().save_if_due(*arguments, **options)
        self.left -= 1
        if not self.left:
            raise Stopped


def train(laboratory, autosave):
    starts = [make_params(i, scale=1.0 + i) for i in range(MEMBERS)]
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    orders = jax.numpy.arange(MEMBERS, dtype=np.int32) % SEEDS
    streams = Stream(orders, jax.random.split(jax.random.key(1), MEMBERS), {})
    keys, steps = jax.random.split(jax.random.key(2), SEEDS), {False: 0, True: 0}

    def count(done, before=False):
        steps[before] += done

    trained = laboratory.train(
        lambda chosen: population.take(params, chosen), streams, keys, count, autosave
    )
    assert sum(steps.values()) == MEMBERS * STEPS
    return trained, steps[True]


def make_grouped(dataset, grouped):
    """A trainer of all members at once, or of half of them at a time."""
    laboratory = make_trainer(dataset, 1, snapshot_step=8)
    memory = laboratory.prepare(MEMBERS).memory
    if grouped:
        assert laboratory.prepare(MEMBERS, memory - 1).members < MEMBERS
    return laboratory


@pytest.fixture(scope="module", params=[False, True], ids=["one group", "two groups"])
def laboratory(request, dataset):
    return make_grouped(dataset, request.param)


@pytest.fixture(scope="module")
def uninterrupted(laboratory):
    trained, _ = train(laboratory, None)
    return trained


@pytest.mark.parametrize("chunks", range(1, NUM_CHUNKS + 1))
def test_a_stopped_training_resumes_to_the_same_bytes(laboratory, uninterrupted, chunks, tmp_path):
    with pytest.raises(Stopped):
        train(laboratory, StoppingAutosave(tmp_path, chunks))
    again, before = train(laboratory, Autosave(tiny.folder(tmp_path), "own"))
    jax.tree.map(np.testing.assert_array_equal, again, uninterrupted)
    assert before


@pytest.mark.parametrize("grouped", [False, True], ids=["one group", "two groups"])
def test_a_stopped_training_resumes_with_other_devices_and_padding(
    grouped, dataset, uninterrupted, tmp_path, monkeypatch
):
    """Only the members are saved, without the padding to a multiple of the devices."""
    with pytest.raises(Stopped):
        train(make_grouped(dataset, grouped), StoppingAutosave(tmp_path, NUM_CHUNKS + grouped))
    devices = jax.devices()
    assert -MEMBERS % len(devices) != -MEMBERS % 2, "both numbers of devices need the same padding"
    monkeypatch.setattr(jax, "devices", lambda: devices[:2])
    laboratory = make_grouped(dataset, grouped)
    again, before = train(laboratory, Autosave(tiny.folder(tmp_path), "own"))
    jax.tree.map(np.testing.assert_array_equal, again, uninterrupted)
    assert before > MEMBERS * STEPS / 2


def test_useless_saved_groups_are_reported(dataset, uninterrupted, tmp_path, capsys):
    with pytest.raises(Stopped):
        train(make_trainer(dataset, 1), StoppingAutosave(tmp_path, 1))
    own = tmp_path / "under_way" / "code" / "own"
    (own / "members_0_to_5_damaged").mkdir()
    again, before = train(make_grouped(dataset, True), Autosave(tiny.folder(tmp_path), "own"))
    jax.tree.map(np.testing.assert_array_equal, again, uninterrupted)
    assert not before
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{own / f'members_0_to_{MEMBERS}'} is ignored: ")


def test_nothing_is_saved_before_the_interval_is_over(laboratory, uninterrupted, tmp_path):
    if laboratory.prepare(MEMBERS).members < MEMBERS:
        pytest.skip("a finished group is always saved")
    train(laboratory, Autosave(tiny.folder(tmp_path), "own", save_every=1e6))
    assert not (tmp_path / "under_way").exists()


def stop_a_run(workdir, config, is_time):
    """Run an experiment that is asked to stop.

    Args:
      workdir: its folder.
      config: its settings.
      is_time: called with the name of the training at every chunk boundary; whether to stop there.
    """
    save = Autosave.save_if_due

    def save_and_stop(self, *arguments, **options):
        patch.setattr(stopping, "_asked_to_stop", is_time(self._folder.path.name))
        save(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Autosave, "save_if_due", save_and_stop)
        with pytest.raises(Stopped):
            tiny.run(workdir, config)
    assert not (workdir / "results.csv").exists()


@pytest.mark.parametrize(
    ("make_config", "retraining", "resumed"),
    [
        (tiny.config, None, {"round_00"}),
        (tiny.rewound, None, {"round_00"}),
        (tiny.learned, "retraining", {"learning", "retraining"}),
        (tiny.one_shot, "seed_0", {"seed_0"}),
        (tiny.connected, None, {"round_00"}),
    ],
)
def test_a_run_stopped_in_every_training_resumes_to_the_same_files(
    make_config, retraining, resumed, tmp_path, monkeypatch, capsys
):
    whole, config, boundaries = tiny.finished(make_config), make_config(), itertools.count(1)
    stop_a_run(tmp_path, config, lambda name: next(boundaries) == 3)
    assert "resuming" not in capsys.readouterr().out
    if retraining:
        stop_a_run(tmp_path, config, lambda name: name == retraining)
    loaded = []
    load = Autosave.load

    def noting(self, *arguments):
        loaded.append((self._folder.path.name, load(self, *arguments)))
        return loaded[-1][1]

    monkeypatch.setattr(Autosave, "load", noting)
    tiny.run(tmp_path, config)
    assert "resuming the training in progress\n" in capsys.readouterr().out
    assert {name for name, state in loaded if state} == resumed
    for file in ("results.csv", *([learned.CURVES] if make_config is tiny.learned else [])):
        assert (tmp_path / file).read_bytes() == (whole / file).read_bytes()
    assert not (tmp_path / "under_way").exists()


def test_signals_stop_a_run_and_the_same_command_resumes_it(tmp_path):
    flags = [
        f"--workdir={tmp_path}", "--checkpoint_minutes=0",
        "--config=experiments/configs/mask_criteria.py:lenet300,tiny",
        f"--config.variants={tiny.VARIANTS}", "--config.chunk_evals=1",
    ]  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        run = command_lines.fork("run", str(int(number)), *flags, code=command_lines.SIGNALLED)
        assert run.returncode == stopping.EXIT_CODE
        assert (tmp_path / "under_way").exists()
        assert run.stderr.splitlines()[-1] == "stopped; run the same command to continue"
    again = command_lines.fork("experiments.run", *flags)
    assert again.returncode == 0
    assert not again.stderr
    tables = [read_table(path / "results.csv") for path in (tmp_path, tiny.finished())]
    for row in (*tables[0], *tables[1]):
        del row["command"]
    assert repr(tables[0]) == repr(tables[1])
