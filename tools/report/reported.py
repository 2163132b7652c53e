"""What papers report for the setting of an experiment that is not one of Zhou et al. 2019."""

from typing import NamedTuple

from tools.report.claims import TRUST
from tools.report.pages import Bullets, Paragraph


class Reported(NamedTuple):
    """A reported number.

    Attributes:
      experiment: the experiment with the same network and data set.
      network: its network.
      text: what was measured, how, and by whom.
      accuracy: test accuracy, percent.
      trust: one or more letters of `claims.TRUST`.
    """

    experiment: str
    network: str
    text: str
    accuracy: float
    trust: str


AT_INIT, METHODS = ("pruning_at_init", "lenet300"), ("supermask_methods", "lenet300")
SNIP = "Lee et al. 2019, trained by SGD with momentum"
LEARNED = "Zhou et al. 2019, 2000 epochs, accuracy of drawn masks"
REPORTED = (
    Reported(*AT_INIT, f"SNIP, 5 % of the weights ({SNIP})", 98.4, "M"),
    Reported(*AT_INIT, f"SNIP, 2 % of the weights ({SNIP})", 97.6, "M"),
    Reported(*METHODS, f"bernoulli, initial weights ({LEARNED})", 95.3, "N"),
    Reported(*METHODS, f"bernoulli, signed constants ({LEARNED})", 96.4, "M"),
)


def beside(experiment: str, network: str) -> list[Paragraph | Bullets]:
    """Return the numbers that papers report for an experiment, none for most."""
    own = [r for r in REPORTED if (r.experiment, r.network) == (experiment, network)]
    if not own:
        return []
    letters = {letter for reported in own for letter in reported.trust}
    known = "; ".join(f"[{letter}] {text}" for letter, text in TRUST.items() if letter in letters)
    return [
        Paragraph(f"Reported test accuracies. Where they are from: {known}."),
        Bullets([f"{r.text}: {r.accuracy:.1f} % [{r.trust}]" for r in own]),
    ]
