import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.plots import plane
from experiments.storage.files import write_json
from supermask_jax import masks
from supermask_jax.criteria import CRITERIA
from tests.experiments import tiny
from tools import plane as program


def shares(axes):
    """Return the fraction of kept weights in every bin, `[w_f, w_i]`."""
    return np.ma.filled(axes.collections[0].get_array(), np.nan)


def panels(figure):
    """Return the panels by title, without the line breaks of long titles."""
    return {axes.get_title().replace("\n", ""): axes for axes in figure.axes if axes.get_title()}


def test_keep_probability_is_how_often_prune_keeps():
    scores = jnp.array([2.0, 1.0, 0.0, 1.0, -1.0, 1.0, 3.0, 0.0])
    prune = jax.jit(jax.vmap(lambda key: masks.prune(key, scores, jnp.ones(8, bool), jnp.int32(4))))
    frequency = prune(jax.random.split(jax.random.key(0), 3000)).mean(axis=0)
    probability = plane.keep_probability(np.asarray(scores), 0.5)
    np.testing.assert_allclose(probability, [1, 2 / 3, 0, 2 / 3, 0, 2 / 3, 1, 0])
    np.testing.assert_allclose(frequency, probability, atol=0.05)


@pytest.mark.parametrize("keep", [0.3, 1.0])
def test_regions_are_as_large_as_what_is_kept(keep):
    drawn = panels(plane.draw_regions(keep))
    assert set(drawn) == set(CRITERIA)
    for axes in drawn.values():
        assert shares(axes).mean() == pytest.approx(keep, abs=1e-4)


def test_regions_have_the_shape_of_their_criterion():
    drawn = {name: shares(axes) for name, axes in panels(plane.draw_regions(0.3)).items()}
    middle, last = plane.REGION_BINS // 2, plane.REGION_BINS - 1
    places = {  # start weight, final weight in bins: kept or not
        "large_final": [(middle, last, 1), (last, middle, 0)],
        "small_init": [(middle, last, 1), (last, middle, 0)],
        "large_init_large_final": [(0, last, 1), (last, middle, 0), (middle, last, 0)],
        "magnitude_increase": [(middle, 0, 1), (0, 0, 0), (0, middle, 0)],
        "movement": [(last, 0, 1), (last, last, 0)],
        "large_final_same_sign": [(last, last, 1), (last, 0, 0)],
        "large_final_diff_sign": [(last, last, 0), (last, 0, 1)],
    }
    for name, expected in places.items():
        for start, final, kept in expected:
            assert drawn[name][final, start] == kept, (name, start, final)
    np.testing.assert_allclose(drawn["random"], 0.3, atol=1e-4)


@pytest.fixture(scope="module")
def weights():
    return program.load(tiny.finished(), "dense1/kernel", 1)


def test_weights_are_where_the_dense_network_has_them(weights):
    w_i, w_f, title = weights
    assert title == "dense1/kernel of lenet300 on digits, dense, seed 1"
    drawn = panels(plane.draw_weights(w_i, w_f, 0.25, title))
    assert set(drawn) == {*CRITERIA, "all weights"}
    counts = np.nan_to_num(shares(drawn["all weights"]))
    assert w_i.size >= counts.sum() > 0.998 * w_i.size
    for name in CRITERIA:
        kept = np.nansum(shares(drawn[name]) * counts)
        assert kept == pytest.approx(0.25 * w_i.size, rel=0.01), name
    rows = np.flatnonzero(counts.sum(axis=1))
    large = shares(drawn["large_final"])
    assert np.nanmin(large[rows[[0, -1]]]) == 1 and np.nanmax(large[plane.WEIGHT_BINS // 2]) == 0


def test_the_weights_are_those_of_the_layer_and_the_seed(weights):
    w_i, w_f, _ = weights
    assert w_i.shape == w_f.shape == (64, 300)
    assert not np.array_equal(w_i, w_f)
    other, *_ = program.load(tiny.finished(), "dense1/kernel", 0)
    assert not np.array_equal(other, w_i)
    largest, _, title = program.load(tiny.finished(), None, None)
    assert largest.shape == (300, 100)
    assert title == "dense2/kernel of lenet300 on digits, dense, seed 0"


@pytest.mark.parametrize("with_weights", [False, True])
def test_nothing_overlaps_on_the_page(weights, with_weights):
    w_i, w_f, title = weights
    figure = plane.draw_weights(w_i, w_f, 0.3, title) if with_weights else plane.draw_regions(0.3)
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes if axes.get_title()]
    for place, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:place])


@pytest.fixture
def main(tmp_path):
    """Run the program on folders."""
    flags.FLAGS.mark_as_parsed()

    def main(*folders, **changes):
        picture = str(tmp_path / "plane.png")
        with flagsaver.flagsaver(picture=picture, **changes):
            program.main(["plane", *map(str, folders)])
        return (tmp_path / "plane.png").read_bytes()

    return main


def test_the_program_draws_a_run_or_the_regions_alone(main):
    assert main(tiny.finished(), layer="output/kernel", seed=1).startswith(b"\x89PNG")
    assert main().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "dense1/kernal"}, "error: unknown layer 'dense1/kernal'; did you mean 'dense1/"),
        ({"seed": 7}, r"error: .* has no seed 7; it has \[0, 1\]"),
    ],
)
def test_a_layer_or_a_seed_that_is_not_there(main, changes, message):
    with pytest.raises(SystemExit, match=message):
        main(tiny.finished(), **changes)


@pytest.mark.parametrize("changes", [{"layer": "dense1/kernel"}, {"seed": 0}])
def test_what_chooses_weights_needs_a_folder(main, changes):
    for name, value in changes.items():
        with pytest.raises(SystemExit, match=f"error: --{name} needs the folder of a run"):
            main(**{name: value})


def test_folders_without_dense_networks(main, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit, match=r"error: \[Errno 2\] No such file .*run/config\.json"):
        main(folder)
    write_json(folder / "config.json", tiny.config().to_dict() | {"slice": "0/2"})
    with pytest.raises(SystemExit, match="run has not finished its dense networks"):
        main(folder)
    write_json(folder / "config.json", tiny.one_shot().to_dict())
    with pytest.raises(SystemExit, match="is a run of one_shot, not of iterative pruning"):
        main(folder)
