"""The checks that a policy can ask for, a row each: the function that judges, and what helps where it did not pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import get_type_hints

from holdfast.artifacts.documents import CheckResult, Document
from holdfast_gates import champion, checks, classes, copying


@dataclass(frozen=True)
class Rule:
    """A check that a policy can ask for: a function of one document, its thresholds and, for a rate, alpha."""

    judge: Callable[..., CheckResult]
    advice: str
    """What helps where it did not pass."""
    undecided: str = ""
    """What helps where it could not be decided; empty: the same."""

    @property
    def name(self) -> str:
        """The key of its thresholds in a policy."""
        return self.judge.__name__

    @cached_property
    def reads(self) -> type[Document]:
        """The kind of evidence that it judges: what its function takes first."""
        kind: type[Document] = next(iter(get_type_hints(self.judge).values()))
        return kind

    @property
    def takes_alpha(self) -> bool:
        """Whether it compares the bound of a rate."""
        return "alpha" in get_type_hints(self.judge)

    @property
    def takes_contract(self) -> bool:
        """Whether it compares with the champion, whose contract the policy may let the candidate leave."""
        return "allow_new_contract" in get_type_hints(self.judge)


_RULES = (
    Rule(checks.schema_anomalies, "Repair the delivery at its source, or change `schema.pbtxt` and have it reviewed."),
    Rule(
        checks.leakage,
        "Let equal rows stay in one part (`data.duplicates: together`), or deliver a held-out file without them.",
    ),
    Rule(checks.drift, "Open `evidently.html` of the drift step and ask the data's owner what changed."),
    Rule(checks.poison, "Review the quarantine; let the scan set suspects aside (`scan.apply: true`), then retrain."),
    Rule(
        checks.backdoor,
        "Look at `triggers.npz`; scan the flagged class's rows, quarantine, retrain; or `holdfast mitigate`.",
        undecided="Bring more held-out rows of the classes named, or a model that separates them and was trained on "
        "this snapshot; or accept it in the policy (`backdoor: {worst_accepted: inconclusive}`).",
    ),
    Rule(checks.clean_accuracy, "More or better rows, a larger network, or a smaller epsilon in training."),
    Rule(checks.robust_accuracy, "Train with more PGD steps or epochs, or at the threat model's epsilon."),
    Rule(
        classes.better_than_constant,
        "Weigh the classes in training (`train.class_weights`), or bring more rows of the class that is missed.",
    ),
    Rule(classes.class_recall, "More rows of the named class, or weigh it more in training (`train.class_weights`)."),
    Rule(
        classes.robust_class_recall,
        "More rows of the named class, or weigh it more in training (`train.class_weights`); see `flags.npz`.",
    ),
    Rule(
        checks.gradient_masking,
        "Remove what hides the gradient (rounding, saturation, randomness); only then measure again.",
        undecided="Train a network that separates the classes and shows its gradient (for messages: `embed` "
        "and `forward_embedded`); before that there is nothing to measure.",
    ),
    Rule(checks.certified_accuracy, "Train with noise near `certify.noise` (`train.noise`), or certify more examples."),
    Rule(
        classes.certified_class_recall,
        "More rows of the named class, or train with noise near `certify.noise` (`train.noise`).",
    ),
    Rule(checks.abstention, "More certification samples, or training with noise near `certify.noise`."),
    Rule(champion.champion_clean, "Keep the champion, or find which examples were lost (`flags.npz`)."),
    Rule(champion.champion_robust, "Keep the champion, or find which examples were lost (`flags.npz`)."),
    Rule(
        champion.champion_class_recall,
        "Keep the champion, or find which examples of the class were lost (`flags.npz`).",
    ),
    Rule(
        copying.extraction_agreement,
        "Give out less (`guard.outputs`, the predictor's `label_only`), or bind clients to fewer queries "
        "(`guard.budget: auto`) and ask the check about so many.",
        undecided="Bring more held-out rows, or run `extract` with all strategies up to the number of queries asked.",
    ),
    Rule(
        copying.guard_false_alarms,
        "A smaller `guard.alpha`; where made-up users were alarmed, shuffle the held-out rows.",
    ),
    Rule(
        copying.guard_detection,
        "Bring more held-out rows (`least_p` of the calibration must be small), or a network whose features tell rows "
        "of no one from users' rows.",
    ),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _RULES})
"""Every check by its name, in the order of the gate's table."""
