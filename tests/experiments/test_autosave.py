"""Trainings that stop at a chunk boundary and resume."""

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
    laboratory = make_trainer(dataset, 1)
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


@pytest.mark.parametrize("make_config", [tiny.config, tiny.learned, tiny.one_shot])
def test_a_stopped_run_resumes_to_the_same_table(make_config, tmp_path, monkeypatch, capsys):
    whole = tiny.finished(make_config) / "results.csv"
    config = make_config(chunk_evals=1)
    save, left = Autosave.save_if_due, [3]

    def save_and_stop(self, *arguments, **options):
        left[0] -= 1
        monkeypatch.setattr(stopping, "_asked_to_stop", left[0] == 0)
        save(self, *arguments, **options)

    monkeypatch.setattr(Autosave, "save_if_due", save_and_stop)
    with pytest.raises(Stopped):
        tiny.run(tmp_path, config)
    monkeypatch.setattr(stopping, "_asked_to_stop", False)
    monkeypatch.setattr(Autosave, "save_if_due", save)
    assert "resuming" not in capsys.readouterr().out
    tiny.run(tmp_path, config)
    assert "resuming the training in progress\n" in capsys.readouterr().out
    assert (tmp_path / "results.csv").read_bytes() == whole.read_bytes()
    assert not (tmp_path / "under_way").exists()


@pytest.mark.parametrize("make_config", [tiny.learned, tiny.one_shot])
def test_a_run_stopped_while_retraining_resumes(make_config, tmp_path, monkeypatch):
    config, save = make_config(), Autosave.save_if_due

    def save_and_stop(self, *arguments, **options):
        again = not self._folder.path.name.startswith(("learning", "round"))
        monkeypatch.setattr(stopping, "_asked_to_stop", again)
        save(self, *arguments, **options)

    monkeypatch.setattr(Autosave, "save_if_due", save_and_stop)
    with pytest.raises(Stopped):
        tiny.run(tmp_path, config)
    assert not (tmp_path / "results.csv").exists()
    monkeypatch.setattr(stopping, "_asked_to_stop", False)
    monkeypatch.setattr(Autosave, "save_if_due", save)
    loaded = []
    load = Autosave.load

    def noting(self, *arguments):
        loaded.append((self._folder.path.name, load(self, *arguments)))
        return loaded[-1][1]

    monkeypatch.setattr(Autosave, "load", noting)
    tiny.run(tmp_path, config)
    whole = tiny.finished(make_config) / "results.csv"
    assert (tmp_path / "results.csv").read_bytes() == whole.read_bytes()
    resumed = {name for name, state in loaded if state}
    assert resumed == ({"learning", "retraining"} if make_config is tiny.learned else {"seed_0"})


def test_a_learned_run_that_was_stopped_keeps_its_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_asked_to_stop", True)
    with pytest.raises(Stopped):
        tiny.run(tmp_path, tiny.learned(chunk_evals=2))
    monkeypatch.setattr(stopping, "_asked_to_stop", False)
    tiny.run(tmp_path, tiny.learned(chunk_evals=2))
    whole = tiny.finished(tiny.learned) / learned.CURVES
    assert (tmp_path / learned.CURVES).read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_and_the_same_command_resumes_it(number, tmp_path):
    flags = [
        f"--workdir={tmp_path}", "--checkpoint_minutes=0",
        "--config=experiments/configs/mask_criteria.py:lenet300,tiny",
        f"--config.variants={tiny.VARIANTS}", "--config.chunk_evals=1",
    ]  # fmt: skip
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
