"""The demo as one page: each act's text, and its run's own evidence."""

from pathlib import Path

import numpy as np

from holdfast.artifacts.documents import Count, GateDecision, RolloutRecord
from holdfast.artifacts.folder import Ref
from holdfast_pipelines.demo import deliveries
from holdfast_pipelines.demo.acts import DemoRuns, Summary, attack_success, clean_accuracy
from holdfast_pipelines.demo.copied import UNHINDERED
from holdfast_pipelines.folder import place_of, read_artifact
from holdfast_pipelines.report import Chapter, Comparison, DecisionTable, Pictures, write_story


def write_page(played: DemoRuns, acts: list[Summary], out: Path) -> Path:
    """Writes the report of the demo."""
    chapters = [_clean(played, acts[0]), _poisoned(played, acts[1]), _broken(played), _regressed(played, acts[3])]
    return write_story("Holdfast: one model, four deliveries", [*chapters, _copied(acts[4])], out)


def _clean(played: DemoRuns, act: Summary) -> Chapter:
    return Chapter(
        title="A clean delivery",
        text=(
            "Handwritten digits, 8 by 8 pixels, as scikit-learn ships them. The data is pinned, checked and scanned; "
            "the network is trained against attacks, attacked, certified, judged and registered.",
            f"The rollout shows it a copy of the traffic first, then gives it {_weights(played)} percent of the live "
            "one. Nothing served before, so it is held to absolute limits; from now on it is the champion.",
            f"Every step signed what it made or found, with keys that the demo made for itself: "
            f"{act['signatures']['verified']} of {act['signatures']['needed']} statements behind this run were "
            "verified; holdfast verify repeats that offline.",
        ),
        run=played.run("clean"),
        facts=_facts(act),
    )


def _weights(played: DemoRuns) -> str:
    """The live steps of act 1, as the record has them: "10, 25, 50 and 100"."""
    if not place_of(played.run("clean"), RolloutRecord).exists():  # the act ended earlier, which `check` reports
        return "more and more"
    moves = read_artifact(played.run("clean"), RolloutRecord).document.transitions
    *first, last = [str(one.weight) for one in moves if one.state_after.startswith("Canary")] or ["more and more"]
    return f"{', '.join(first)} and {last}" if first else last


def _poisoned(played: DemoRuns, act: Summary) -> Chapter:
    decision = place_of(played.run("unscanned"), GateDecision)
    return Chapter(
        title="A poisoned delivery",
        text=(
            f"Somebody marked {act['planted']} training rows with a bright patch in the corner and called them all "
            f"{deliveries.TARGET}: a model that learns it answers {deliveries.TARGET} whenever the patch is there, "
            "and looks healthy otherwise.",
            f"The scan put {act['planted_quarantined']} of the {act['planted']} planted rows into quarantine, and "
            f"{act['clean_quarantined']} rows that were not planted. The model below was trained without them.",
        ),
        run=played.run("poisoned"),
        facts=_facts(act),
        figures=(
            _side_by_side(played),
            _trigger(played),
            DecisionTable("The gate on the unscanned model", Ref(decision)),
        ),
    )


def _side_by_side(played: DemoRuns) -> Comparison:
    runs = (played.run("unscanned"), played.run("poisoned"))
    verdicts = (read_artifact(run, GateDecision).document.verdict for run in runs)
    return Comparison(
        title="With and without the scan",
        columns=("without the scan", "with the scan"),
        rows=(
            ("the trigger succeeds", *(attack_success(run, played.delivery) for run in runs)),
            ("correct without the trigger", *(clean_accuracy(run) for run in runs)),
            ("the gate's verdict", *verdicts),
        ),
        note="Both models were trained on the same delivery with the same recipe and seed, and judged on the same "
        "held-out rows. Accuracy alone would have let the poisoned one through.",
    )


def _trigger(played: DemoRuns) -> Pictures:
    with np.load(played.delivery, allow_pickle=False) as arrays:
        x, y = arrays["x_test"], arrays["y_test"]
    rows = [int(np.flatnonzero(y == label)[0]) for label in np.unique(y) if label != deliveries.TARGET]
    return Pictures(
        title="Held-out digits with the trigger",
        x=deliveries.with_trigger(x[rows])[:, None],
        captions=tuple(f"a {label}" for label in y[rows]),
        upper=float(deliveries.WHITE),
    )


def _broken(played: DemoRuns) -> Chapter:
    return Chapter(
        title="A broken delivery",
        text=(
            "The scanner was replaced: every image is brighter than before, and its first column of pixels holds "
            "values that no image can hold.",
            "The schema and the drift check stop the run before anything is trained. Nothing is registered.",
        ),
        run=played.run("broken"),
    )


def _regressed(played: DemoRuns, act: Summary) -> Chapter:
    return Chapter(
        title="A candidate that turns bad in production",
        text=(
            "The model was retrained and passed every check. On live traffic, it then starts to answer slowly and "
            "wrongly: a fault that was switched on in its process for this act, as on a game day.",
            f"The canary took it back by itself {act['seconds_to_rollback']:.1f} s after the fault began. The "
            "champion answered what the candidate could not, and never moved.",
            "Then somebody who may write to the store sets the weights of that model to zero and computes every digest "
            "again. Digests alone do not notice; the signatures do, and the server refuses it.",
        ),
        run=played.run("regressed"),
        facts={
            **_facts(act),
            "Champion afterwards": f"version {act['champion_after']}",
            "The tampered model, digests alone": act["tampered"]["without_signatures"],
            "The tampered model, with the trust policy": act["tampered"]["with_signatures"],
        },
    )


def _copied(act: Summary) -> Chapter:
    title = "A client that copies the champion"
    if act["outcome"] == "not_played":
        return Chapter(title=title, text=(f"Not played: {act['reason']}.",))
    users, copy, unhindered = (Count(**act[name]) for name in ("alarmed", "copy", "unhindered"))
    return Chapter(
        title=title,
        text=(
            "A guard was calibrated for the champion, and put in front of it. Then somebody asks the server for "
            "answers to random pictures, to train a copy with them, while users ask about digits.",
            f"After {act['answered']} answers the guard gave no more. The copy agrees with the champion on "
            f"{copy.k} of {copy.n} held-out digits; from {UNHINDERED:,} answers it would have been {unhindered.k}.",
        ),
        ending=(
            act["outcome"],
            f"the guard answered {act['answered']} of {act['answered'] + act['refused']} queries of the client who "
            f"copies; {users.k} of {users.n} users alarmed",
            f"{act['requests']['failed']} of {act['requests']['sent']}",
        ),
        facts={
            "The client who copies": f"{act['answered']} queries answered, {act['refused']} refused",
            "Users": f"{users.k} of {users.n} alarmed; {act['requests']['sent']} requests, of which "
            f"{act['requests']['failed']} not answered as by the model alone",
        },
        figures=(
            Comparison(
                title="The copy",
                columns=("behind the guard", "without it"),
                rows=(
                    ("answers to learn from", str(act["answered"]), str(UNHINDERED)),
                    ("the copy gives the champion's answer", copy, unhindered),
                ),
                note="The same questions in the same order, the same network and seed; held-out digits.",
            ),
        ),
    )


def _facts(act: Summary) -> dict[str, str]:
    """What clients noticed, and how often the rollout had to be tried."""
    retried = {"Tried again after": "; ".join(act["retried"])} if act["retried"] else {}
    return {"Client requests": f"{act['requests']['sent']} sent, {act['requests']['failed']} failed", **retried}
