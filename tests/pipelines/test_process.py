import os
import sys
from pathlib import Path

import pytest

from holdfast_pipelines.process import run_child, tail


def python(code):
    return [sys.executable, "-c", code]


def test_output_and_errors_of_a_child_go_to_the_log_in_order(tmp_path):
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr, flush=True); sys.exit(3)"
    ended = run_child(python(code), env=os.environ, log=tmp_path / "logs" / "a.log")
    assert (ended.code, ended.tail) == (3, ("one", "two"))
    assert (tmp_path / "logs" / "a.log").read_text() == "one\ntwo\n"


def test_a_child_reads_nothing_from_the_terminal(tmp_path):
    ended = run_child(python("import sys; print(repr(sys.stdin.read()))"), env=os.environ, log=tmp_path / "a.log")
    assert ended.tail == ("''",)


def test_a_child_leads_its_own_group(tmp_path):
    ended = run_child(python("import os; print(os.getpgrp() == os.getpid())"), env=os.environ, log=tmp_path / "a.log")
    assert ended.tail == ("True",)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb\n\n  \nc\n", ("b", "c")),
        ("\x1b[31mred\x1b[0m\n\x1b]0;title\x07plain\n", ("red", "plain")),
        ("10%\r50%\r100%\r\ndone", ("100%", "done")),
        ("", ()),
    ],
)
def test_the_tail_is_what_a_person_would_have_seen_last(tmp_path, text, lines):
    (tmp_path / "a.log").write_bytes(text.encode())
    assert tail(tmp_path / "a.log", 2) == lines


def test_the_tail_of_a_long_log_of_bytes_that_are_no_text_is_short(tmp_path):
    log = Path(tmp_path / "a.log")
    log.write_bytes(b"\xff\xfe" * 200_000 + b"\nlast\n")
    assert tail(log, 1) == ("last",)
