"""F11 for real, without servers: a model is an arm of a rollout until what spoke for it is withdrawn."""

from datetime import timedelta

import pytest

from tests.faults.live.withdrawn import KINDS, signed_model, withdraw
from tests.serving.conftest import write_bundle


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_withdrawn_speaks_for_the_model_no_more(tmp_path, kind):
    bundle = write_bundle(tmp_path / "bundle", seed=0)
    model = signed_model(bundle, tmp_path / "version", timedelta(seconds=4 if "waiver" in kind else 60))
    found = withdraw(kind, model)
    assert (found.before, found.after) == ((True,), (False,))
