"""Draw what each mask criterion keeps in the plane of start weight and final weight.

    python -m tools.plane runs/mask_criteria --picture=plane.png [--layer=dense1/kernel --keep=0.2]
    python -m tools.plane --picture=regions.png

Given the folder of an iterative run, the figure shows where the weights of a layer of its dense
network are, and which fraction of them each criterion keeps, bin by bin. Without a folder it shows
the region of each criterion, for weights spread evenly over a square. Where weights tie, the figure
shows the fraction that is kept. The data set is read from --data_dir or TFDS_DATA_DIR.
"""

from pathlib import Path

import jax
import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict

from experiments.command_line import fail, path_of, refuse_nan, run_program
from experiments.plots import plane, save
from experiments.runners import hyperparameters, iterative
from experiments.runners.outcomes import abstract_outcome
from experiments.storage import run_folder
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.files import read_json
from experiments.tables.hyperparameters import in_words, joined
from supermask_jax.checks import lookup
from supermask_jax.paths import path_name
from tools.figure import PICTURE
from tools.one_row import DATA_DIR

KEEP = flags.DEFINE_float(
    "keep", 0.3, "Fraction of the weights that is kept.", lower_bound=0.001, upper_bound=1.0
)
LAYER = flags.DEFINE_string("layer", None, "Path of the layer; by default the largest.")
SEED = flags.DEFINE_integer("seed", None, "Seed of the dense network; by default the first.")
refuse_nan(KEEP)
flags.declare_key_flag(DATA_DIR.name)


def main(arguments: list[str]) -> None:
    """Draw the figure for the folder named on the command line, or without one."""
    logging.set_verbosity(logging.WARNING)
    keep = KEEP.value or 0.0
    try:
        if len(arguments) > 2:
            raise ValueError("name one folder of a run, or none.")
        picture = Path(PICTURE.value)
        if len(arguments) == 1:
            for flag in (LAYER, SEED):
                if flag.value is not None:
                    raise ValueError(f"--{flag.name} needs the folder of a run.")
            figure = plane.draw_regions(keep)
        else:
            weights = load(path_of(arguments[1]), LAYER.value, SEED.value, DATA_DIR.value)
            figure = plane.draw_weights(*weights[:2], keep, weights[2])
        save(figure, picture)
        print(picture)
    except (ValueError, TypeError, OSError) as error:
        fail(error)


def load(
    workdir: Path, layer: str | None, seed: int | None, data_dir: str | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return a layer's weights before and after the dense training, and a title for them.

    Of several dense networks with the seed, they are of the first.

    Args:
      workdir: the folder of a run.
      layer: the path of the layer; None for the largest.
      seed: of the dense network; None for the first.
      data_dir: the folder of prepared data sets.

    Raises:
      TypeError: if a function of one's own that the run names takes other arguments.
      ValueError: if the run is of another kind or has not finished round 0, or if the layer or the
        seed is unknown.
      FileNotFoundError: if there is no run, or no data.
    """
    config = read_json(workdir / run_folder.CONFIG)
    if config.get("runner") != "iterative":
        raise ValueError(f"{workdir} is a run of {config.get('runner')}, not of iterative pruning.")
    settings = run_folder.settings(config)
    plan = iterative.make_plan(ConfigDict(settings), data_dir, config.get("slice"))
    seed = plan.seeds[0] if seed is None else seed
    if seed not in plan.seeds:
        raise ValueError(f"{workdir} has no seed {seed}; it has {plan.seeds}.")
    checkpoints = Checkpoints(run_folder.existing(workdir).below("checkpoints"), keep=1)
    if 0 not in checkpoints.rounds():
        raise ValueError(f"{workdir} has not finished its dense networks.")
    outcome = checkpoints.load(0, abstract_outcome(plan, 0))
    w_i, w_f = (
        {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (outcome.state.w_i, outcome.w_f)
    )
    prunable = jax.tree.leaves(plan.problem.prunable)
    kernels = {name: w_i[name] for name, yes in zip(w_i, prunable, strict=True) if yes}
    layer = layer or max(kernels, key=lambda name: kernels[name].size)
    lookup("layer", layer, kernels)
    title = f"{layer} of {plan.config.network} on {plan.config.dataset}, dense, seed {seed}"
    place, own = next((i, m) for i, m in enumerate(plan.members(0)) if m.seed == seed)
    several = hyperparameters.swept(plan.config, hyperparameters.OF_TRAINING)
    title = joined(title, in_words(own.numbers._asdict(), several))
    return w_i[layer][place], w_f[layer][place], title


if __name__ == "__main__":
    run_program(main)
