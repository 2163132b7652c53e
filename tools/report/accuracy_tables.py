"""Readable tables of test accuracies, by round and variant or by kind of supermask.

Cells are the mean over seeds in percent with the minimum, the maximum and the number of seeds; of a
single seed they are its value alone.
"""

from collections.abc import Sequence

import numpy as np

from experiments.storage import results
from experiments.tables.barriers import barriers, is_of_lines
from experiments.tables.curves import Curve, make_curves, num_seeds, setting
from experiments.tables.hyperparameters import in_words, joined, swept
from experiments.tables.selection import SelectedMasks, is_heuristic, select_masks
from tools.report.pages import Code, Inline, Table, Text

LEARNED_MEASURES = {
    "validation_accuracy": "validation, drawn masks",
    "test_accuracy": "test, drawn masks",
    "test_most_probable_accuracy": "test, most probable mask",
    "test_expected_accuracy": "test, expected mask",
}


def table(rows: Sequence[results.Row]) -> Table:
    """Return the readable table for the results of any runner.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    title = ", ".join(setting(rows))
    if is_of_lines(rows):
        return _barriers(title, rows)
    if "round" in rows[0]:
        return _rounds(title, rows)
    if is_heuristic(rows):
        return _heuristic(title, select_masks(rows))
    return _learned(title, rows)


def at_a_glance(rows: Sequence[results.Row]) -> list[Inline]:
    """Return a sentence on iterative pruning: the dense network, and the last common round.

    Accuracies are the mean and half the range from minimum to maximum.

    Raises:
      ValueError: if there are no rows, or rows of several networks or data sets.
    """
    dense, variants = make_curves(rows)
    words: list[Inline] = [f"{own.name} {_short(own, 0)}" for own in dense[:1]]
    words += [f", {own.name} {_short(own, 0)}" for own in dense[1:]]
    if variants:
        last = min(int(curve.rounds.max()) for curve in variants)
        words.append(f"{', ' if words else ''}at {_weights_left(variants, last)} % of the weights ")
        for curve in variants:
            words += [Code(curve.name), f" {_short(curve, last)}", ", "]
        words.pop()
    return [*words, f" (mean ± half the range, {num_seeds(rows)})"]


def values(percents: np.ndarray) -> str:
    """Return the mean, the range and the number of values as text."""
    mean, low, high = (float(f(percents)) for f in (np.mean, np.min, np.max))
    return _in_words(mean, low, high, len(percents))


def _in_words(mean: float, low: float, high: float, count: int) -> str:
    return f"{mean:.2f} ({low:.2f} to {high:.2f}; n = {count})" if count > 1 else f"{mean:.2f}"


def _cell(curve: Curve, number: int) -> str:
    """Return the same for one round of a curve; empty if there is no such round."""
    if not (found := _round(curve, number)):
        return ""
    mean, low, high, count = found
    return _in_words(mean, low, high, round(count))


def _short(curve: Curve, number: int) -> str:
    """Return the mean and half the range of a round; empty if there is no such round."""
    if not (found := _round(curve, number)):
        return ""
    mean, low, high, _ = found
    return f"{mean:.2f} ± {(high - low) / 2:.2f}"


def _round(curve: Curve, number: int) -> tuple[float, float, float, float] | None:
    """Return the mean, minimum, maximum and number of members of a round."""
    at = curve.rounds == number
    if not at.any():
        return None
    columns = curve.mean, curve.low, curve.high, curve.num_members
    mean, low, high, count = (float(numbers[at][0]) for numbers in columns)
    return mean, low, high, count


def _rounds(title: str, rows: Sequence[results.Row]) -> Table:
    """Return a table of all rounds, the dense network first."""
    dense, variants = make_curves(rows)
    lines: list[list[Text]] = []
    if dense:
        lines.append(["0, dense", "100", *(_cell(curve, 0) for curve in variants)])
    for number in sorted({int(n) for curve in variants for n in curve.rounds} - {0}):
        left = _weights_left(variants, number)
        lines.append([str(number), left, *(_cell(curve, number) for curve in variants)])
    head = [f"{title}: round", "% of weights left", *(c.name for c in variants)]
    return Table(head, lines)


def _barriers(title: str, rows: Sequence[results.Row]) -> Table:
    """Return a line per rewinding step, round and variant: the ends of lines and their barriers."""
    lines: list[list[Text]] = []
    found = barriers(rows)
    names = "rewind_step", "round", "variant"
    for place in dict.fromkeys(tuple(row[name] for name in names) for row in found):
        own = [row for row in found if tuple(row[name] for name in names) == place]
        density = 100 * np.mean([row["density"] for row in own])
        columns = ([100 * row[n] for row in own] for n in ("test_accuracy", "error_barrier"))
        cells = (values(np.array(column)) for column in columns)
        lines.append([*map(str, place), f"{density:.2f}", *cells])
    head = [f"{title}: rewound to step", "round", "variant", "% of weights left"]
    return Table([*head, "test accuracy (%)", "error barrier (points)"], lines)


def _weights_left(curves: Sequence[Curve], number: int) -> str:
    """Return the percentage left in a round, or its range where variants differ."""
    left = sorted(n for c in curves for n in c.weights_left[c.rounds == number])
    return " to ".join(dict.fromkeys(f"{n:.2f}" for n in (left[0], left[-1])))


def _heuristic(title: str, found: Sequence[SelectedMasks]) -> Table:
    """Return a line per criterion and weights: the best density per seed, and one for all."""
    head = [f"{title}: criterion", "weights", "maximum over densities"]
    lines: list[list[Text]] = []
    for m in sorted(found, key=lambda m: -m.maxima.mean()):
        cells = values(m.maxima), values(m.accuracies), f"{m.density:.2f}"
        lines.append([m.criterion, m.weights, *cells])
    return Table([*head, "at the density best on validation", "% of weights left there"], lines)


def _learned(title: str, rows: Sequence[results.Row]) -> Table:
    """Return a line per weights and initial logit; the best on validation is marked."""
    lines: list[list[Text]] = []
    several = swept(rows)
    for best in select_masks(rows):
        name = joined(best.weights + ", rescaled" * best.rescale, best.numbers)
        columns = "weights", "rescale", "draw"
        own = [
            r
            for r in rows
            if all(r.get(c, "") == getattr(best, c) for c in columns)
            and in_words(r, several) == best.numbers
        ]
        logits = dict.fromkeys(row["initial_logit"] for row in own)
        for logit in logits:
            at = [row for row in own if row["initial_logit"] == logit]
            note = " (best on validation)" if logit == best.setting and len(logits) > 1 else ""
            density = 100 * np.mean([row["density"] for row in at])
            cells = [_column(at, measure) for measure in LEARNED_MEASURES]
            lines.append([name, best.draw, f"{logit:g}{note}", f"{density:.2f}", *cells])
    head = [f"{title}: weights", "draw", "initial logit", "% of weights left"]
    return Table([*head, *LEARNED_MEASURES.values()], lines)


def _column(rows: Sequence[results.Row], measure: str) -> str:
    """Return the values of a measure; empty if the draw does not have it."""
    percents = 100 * np.array([row[measure] for row in rows])
    return values(percents) if np.isfinite(percents).any() else ""
