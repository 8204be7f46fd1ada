"""What was measured counts for the code that it was measured on, and for no other."""

from pathlib import Path

import pytest

from benchmarks.records import Records


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "one.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text("y = 1\n")
    return tmp_path


def test_records_are_kept_in_the_order_in_which_they_came(root):
    for number in range(3):
        Records.of("name", "code", root=root).add({"number": number})
    assert [record["number"] for record in Records.of("name", "code", root=root).read()] == [0, 1, 2]


def test_a_change_of_the_code_leaves_earlier_records_out_and_says_so(root, capsys):
    Records.of("name", "code", root=root).add({"number": 0})
    (root / "code" / "one.py").write_text("x = 2\n")
    assert Records.of("name", "code", root=root).read() == []
    assert "1 runs of other code are left out" in capsys.readouterr().err


def test_a_change_elsewhere_leaves_them_in(root):
    Records.of("name", "code", root=root).add({"number": 0})
    (root / "other.py").write_text("y = 2\n")
    assert len(Records.of("name", "code", root=root).read()) == 1


def test_nothing_is_kept_after_they_were_cleared(root):
    records = Records.of("name", "code", "other.py", root=root)
    records.add({"number": 0})
    records.clear()
    assert records.read() == []
