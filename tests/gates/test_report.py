from xml.etree import ElementTree

from holdfast.artifacts.documents import (
    Anomaly,
    ChampionComparison,
    Count,
    Errors,
    OperatingPoint,
    OperatingResult,
    Paired,
    Verdict,
)
from holdfast_gates.decide import Evidence, decide
from holdfast_gates.policy import with_overrides
from holdfast_gates.report import to_junit, to_markdown
from holdfast_gates.shortfalls import of_decision, of_drift, of_schema


def spoil(evidence, make, role, **changes):
    return {**evidence, role: Evidence(make[role](**changes), evidence[role].digest)}


def test_the_table_shows_what_was_measured_required_and_the_champion(policy, judged, evidence):
    text = to_markdown(decide(policy, judged, evidence), policy)
    row = next(row for row in text.splitlines() if row.startswith("| robust_accuracy"))
    assert "0.790 (790 of 1000)" in row
    assert "at least 0.500" in row
    assert "| 0.790 | pass |" in row
    assert text.startswith("# digits: pass\n")
    assert "What to do next" not in text


def test_a_failed_check_says_what_to_do_next(policy, judged, evidence, make):
    weak = spoil(evidence, make, "attack", worst_case=Count(k=100, n=1000))
    text = to_markdown(decide(policy, judged, weak), policy)
    assert "**fail**" in text
    assert "- robust_accuracy: Train with more PGD steps" in text


def test_an_undecided_check_asks_for_more_examples(policy, judged, evidence, make):
    few = spoil(evidence, make, "attack", clean=Count(k=29, n=30))
    assert "- clean_accuracy: More held-out examples" in to_markdown(decide(policy, judged, few), policy)


def test_an_undecided_backdoor_check_accuses_no_class(policy, judged, evidence, make):
    reason = "1: 323 of 323 rows of other classes are answered so anyway"
    unknown = spoil(evidence, make, "backdoor", verdict=Verdict.INCONCLUSIVE, reason=reason)
    text = to_markdown(decide(policy, judged, unknown), policy)
    assert f"- backdoor: {reason}" in text
    assert "- backdoor: Bring more held-out rows" in text
    assert "mitigate" not in text


def test_missing_evidence_asks_for_the_step_that_writes_it(policy, judged, evidence):
    del evidence["certify"]
    assert "- abstention: Run the step" in to_markdown(decide(policy, judged, evidence), policy)


def test_overrides_of_the_workload_are_told(policy, judged, evidence):
    lax = with_overrides(policy, {"robust_accuracy": {"at_least": 0.4}})
    assert "- robust_accuracy: at_least = 0.4" in to_markdown(decide(lax, judged, evidence), lax)


def test_a_column_name_cannot_break_the_table_or_inject_markup(policy, judged, evidence, make):
    nasty = Anomaly(column="a|b\n| x | <img src=y>", kind="ENUM", detail="")
    text = to_markdown(
        decide(policy, judged, spoil(evidence, make, "schema", anomalies=(nasty,), verdict=Verdict.FAIL)), policy
    )
    assert "<img" not in text.replace("\\<img", "")
    assert r"a\|b \| x \|" in text


def test_junit_has_one_case_per_check_and_counts_them(policy, judged, evidence, make):
    lost = {"champion_clean": None, "champion_worst_case": None, "champion_classes": ()}
    lost |= {"champion": ChampionComparison()}
    alone = spoil(evidence, make, "attack", clean=Count(k=1, n=1000), **lost)
    del alone["certify"]
    decision = decide(policy, judged, alone)
    root = ElementTree.fromstring(to_junit(decision))
    cases = root.findall("testsuite/testcase")
    assert len(cases) == len(decision.checks) == int(root.attrib["tests"])
    assert [case.attrib["name"] for case in cases if case.find("failure") is not None] == ["clean_accuracy"]
    assert [c.attrib["name"] for c in cases if c.find("error") is not None] == [
        "certified_accuracy",
        "certified_class_recall",
        "abstention",
    ]
    assert [c.attrib["name"] for c in cases if c.find("skipped") is not None] == [
        "champion_clean",
        "champion_robust",
        "champion_class_recall",
    ]


def test_junit_survives_what_xml_cannot_hold(policy, judged, evidence, make):
    nasty = Anomaly(column='\x00\x1b<&>\ud800"]]>', kind="ENUM", detail="")
    broken = spoil(evidence, make, "schema", anomalies=(nasty,), verdict=Verdict.FAIL)
    message = ElementTree.fromstring(to_junit(decide(policy, judged, broken))).find(".//failure").attrib["message"]
    assert "<&>" in message


def test_the_paired_row_shows_a_signed_difference(policy, judged, evidence, make):
    pairs = Paired(both=900, only_candidate=30, only_champion=10, neither=60)
    better = spoil(evidence, make, "attack", champion_clean=pairs)
    row = next(
        row
        for row in to_markdown(decide(policy, judged, better), policy).splitlines()
        if row.startswith("| champion_cl")
    )
    assert "| +0.020 |" in row
    assert "| 0.910 | pass |" in row


def operating(rule):
    point = OperatingPoint.model_validate(
        {
            "positive": "fraud",
            "threshold": -2.5,
            "misses": {"k": 3, "n": 20},
            "false_alarms": {"k": 40, "n": 480},
            **rule,
        }
    )

    def errors(misses, alarms):
        return Errors(misses=Count(k=misses, n=50), false_alarms=Count(k=alarms, n=500))

    return OperatingResult(
        point=point,
        other="ok",
        positives=Count(k=40, n=1000),
        clean=errors(5, 50),
        worst_case=errors(25, 100),
        without_threshold=errors(30, 5),
    )


def test_the_page_shows_what_the_operating_point_costs_and_the_constant_answer(policy, judged, evidence):
    result = operating({"costs": {"miss": 50, "false_alarm": 1}})
    text = to_markdown(decide(policy, judged, evidence), policy, result)
    # By hand: 1,000 rows have 40 frauds; 4 missed at 50 and 96 of 960 alarms cost 200 + 96.
    assert "| no attack | 296 [" in text
    assert "| under attack | 1192 [" in text
    assert "| no attack, without the threshold | 1210 [" in text
    assert "| always 'fraud' | 960 | 0 | 960 |" in text
    assert "'fraud' is answered above a margin of -2.5 (least cost: 50 for a miss, 1 for a false alarm)" in text
    assert "3 of 20 missed, 40 of 480 false alarms" in text


def test_with_a_rate_the_page_shows_both_kinds_of_wrong_answers_and_no_cost(policy, judged, evidence):
    text = to_markdown(decide(policy, judged, evidence), policy, operating({"false_positive_rate": 0.1}))
    assert "| no attack | 4 (5 of 50) | 96 (50 of 500) |" in text
    assert "| always 'ok' | 40 | 0 |" in text
    assert "cost" not in text.split("## Operating point")[1].split("Expected in")[0]


def test_a_model_without_an_operating_point_has_no_such_part(policy, judged, evidence):
    assert "Operating point" not in to_markdown(decide(policy, judged, evidence), policy)


def test_shortfalls_name_failed_checks_first_then_those_without_an_answer(policy, judged, evidence, make):
    bad = spoil(evidence, make, "attack", clean=Count(k=29, n=30), worst_case=Count(k=100, n=1000))
    decision = decide(policy, judged, bad)
    found = of_decision(decision)
    assert [one.verdict for one in found] == sorted((one.verdict for one in found), key=lambda v: v is not Verdict.FAIL)
    robust = next(one for one in found if one.check == "robust_accuracy")
    assert robust.sentence == "robust_accuracy (fail): measured 0.100 (100 of 1000), required at least 0.500"
    assert robust.advice.startswith("Train with more PGD steps")
    assert of_decision(decide(policy, judged, evidence)) == ()


def test_the_checks_of_a_delivery_have_the_same_form(make):
    odd = tuple(Anomaly(column=f"c{i}", kind="ENUM", detail="new value") for i in range(5))
    (one,) = of_schema(make["schema"](anomalies=odd, verdict=Verdict.FAIL))
    assert one.sentence.startswith("schema_anomalies (fail): measured 5 anomalies, required none in ")
    assert one.found == "c0: new value; c1: new value; c2: new value; and 2 more"
    assert of_schema(make["schema"](verdict=Verdict.PASS)) == ()
    assert of_drift(make["drift"](verdict=Verdict.PASS)) == ()
    (moved,) = of_drift(make["drift"](drifted=Count(k=3, n=4), reason="too many", verdict=Verdict.FAIL))
    assert "measured 3 of 4 columns drifted" in moved.sentence
