"""The style of each criterion and action, the same in every figure.

A family shares its hue and its marker. Its first member is dark and solid with a filled marker; its
opposite is lighter and dashed with a hollow marker. Figures therefore remain readable in greyscale
and for colour-blind readers. `rewind` and `zero` are the default actions of `large_final` and have
its style.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.colors import to_hex, to_rgb, to_rgba

LIGHTEST = 0.6  # the share of white in the last of several curves that would look the same
SOLID, DASHED, DOTTED, DASH_DOTTED = "-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.4, 1, 1.4))


@contextlib.contextmanager
def matplotlib_defaults() -> Iterator[None]:
    """Draw or save a figure as anywhere else, whatever a user's matplotlibrc says.

    Some settings are read when a figure is drawn and others when it is saved, so both need this.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


class Style(NamedTuple):
    """Colour, marker and line of a curve, and whether the marker is filled."""

    color: str
    marker: str
    line: Any = SOLID
    filled: bool = True

    def line_options(self) -> dict[str, Any]:
        """Return keyword arguments for `Axes.plot`."""
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.line,
            "markerfacecolor": self.color if self.filled else "white",
        }


STYLES: dict[str, Style] = {
    # Mask criteria.
    "large_final": Style("#111111", "o"),
    "small_final": Style("#8c8c8c", "o", DASHED, filled=False),
    "large_init": Style("#b03a00", "s"),
    "small_init": Style("#f08a4b", "s", DASHED, filled=False),
    "large_init_large_final": Style("#00664a", "D"),
    "small_init_small_final": Style("#3fbf94", "D", DASHED, filled=False),
    "magnitude_increase": Style("#0072b2", "^"),
    "movement": Style("#56b4e9", "v"),
    "random": Style("#c2478b", "x", DOTTED),
    "large_final_same_sign": Style("#5b2a86", "P"),
    "large_final_diff_sign": Style("#b48ad6", "P", DASHED, filled=False),
    "magnitude_increase_same_sign": Style("#7a5200", "p", DASH_DOTTED),
    "magnitude_increase_diff_sign": Style("#d9a400", "p", DASHED, filled=False),
    # Scores of untrained networks; `random` is among the criteria.
    "snip": Style("#0072b2", "^"),
    "grasp": Style("#b03a00", "s"),
    "synflow": Style("#00664a", "D"),
    "magnitude": Style("#7a5200", "p", DASH_DOTTED),
    # Draws of learned supermasks: dashed where masks are random.
    "bernoulli": Style("#111111", "o", DASHED),
    "top_k": Style("#0072b2", "^"),
    "threshold": Style("#b03a00", "s"),
    "ternary": Style("#00664a", "D"),
    "gumbel": Style("#c2478b", "v", DASHED, filled=False),
    "hard_concrete": Style("#7a5200", "p", DASHED, filled=False),
    "continuous": Style("#5b2a86", "P"),
    # Mask-1 actions: solid where signs are kept, dashed where they are not.
    "rewind": Style("#111111", "o"),
    "reinit_keep_sign": Style("#0072b2", "^"),
    "reinit": Style("#56b4e9", "^", DASHED, filled=False),
    "reshuffle_keep_sign": Style("#b03a00", "s"),
    "reshuffle": Style("#f08a4b", "s", DASHED, filled=False),
    "constant_keep_sign": Style("#00664a", "D"),
    "constant": Style("#3fbf94", "D", DASHED, filled=False),
    "rewind_unless_shrunk": Style("#5b2a86", "P"),
    "finetune": Style("#7a5200", "p", DASH_DOTTED),
    # Mask-0 actions: dashed for the controls.
    "zero": Style("#111111", "o"),
    "freeze": Style("#b03a00", "s"),
    "zero_if_shrunk": Style("#0072b2", "^"),
    "zero_if_grown": Style("#56b4e9", "v", DASHED, filled=False),
    "zero_shuffled": Style("#c2478b", "x", DOTTED),
}


def band_options(color: str, line: Any = SOLID) -> dict[str, Any]:
    """Return keyword arguments for a band whose thin edges still show where bands overlap.

    Args:
      color: the colour of the curve.
      line: the line style of the edges.
    """
    return {
        "facecolor": to_rgba(color, 0.09),
        "edgecolor": to_rgba(color, 0.5),
        "linewidth": 0.6,
        "linestyle": line,
    }


# For functions of a user's own: hues of the table above with markers it does not use.
OTHERS = tuple(
    Style(color, marker, line)
    for line in (DASH_DOTTED, SOLID)
    for color, marker in zip(
        ("#7a5200", "#5b2a86", "#00664a", "#c2478b", "#0072b2", "#f08a4b"), "*<>hdX", strict=True
    )
)


def styles_for(names: Sequence[str]) -> list[Style]:
    """Return a style per name; unknown names take the styles of `OTHERS` in turn."""
    unknown = [name for name in dict.fromkeys(names) if name not in STYLES]
    others = {name: OTHERS[place % len(OTHERS)] for place, name in enumerate(unknown)}
    return [(STYLES | others)[name] for name in names]


def told_apart(styles: Sequence[Style]) -> list[Style]:
    """Return styles of which equal ones grow lighter from the first to the last."""
    counts, seen = Counter(styles), Counter()
    found = []
    for style in styles:
        share = LIGHTEST * seen[style] / max(counts[style] - 1, 1)
        seen[style] += 1
        red, green, blue = ((1 - share) * part + share for part in to_rgb(style.color))
        found.append(style._replace(color=to_hex((red, green, blue))) if share else style)
    return found
