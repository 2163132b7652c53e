"""The kinds of experiments by the name that configurations give them."""

from types import ModuleType

from experiments import iterative, learned, one_shot

# Each has COLUMNS, LISTS, make_plan, run, row_key and alone.
RUNNERS: dict[str, ModuleType] = {
    "iterative": iterative,
    "learned": learned,
    "one_shot": one_shot,
}
