"""What counts as slow is read from the control's own answers."""

from holdfast.serving.rollout.judge.latency import p95_edge

EDGES = (1.0, 2.0, 5.0, 10.0)


def test_the_smallest_edge_that_95_percent_came_within():
    assert p95_edge((10, 94, 96, 100), 100, EDGES, 0.0) == 2
    assert p95_edge((10, 95, 96, 100), 100, EDGES, 0.0) == 1


def test_nothing_below_the_floor_is_slow():
    assert p95_edge((100, 100, 100, 100), 100, EDGES, 5.0) == 2


def test_with_few_answers_nobody_knows_what_is_slow():
    assert p95_edge((99, 99, 99, 99), 99, EDGES, 0.0) is None
    assert p95_edge((), 0, EDGES, 0.0) is None


def test_no_edge_reaches_far_enough():
    assert p95_edge((1, 2, 3, 90), 100, EDGES, 0.0) is None
