"""Holdfast: only models that hold fast ship.

A Kubeflow pipeline retrains a model, every step leaves evidence pinned to the exact bytes it judged, a policy gate
reads nothing but that evidence, MLflow holds the models that passed, and a rollout moves live traffic to the new model
step by step and takes it back by itself.

Where is what:

* `holdfast.steps`       one row per step: all lists of steps are made from it
* `holdfast.workload`    the user's YAML: data, network, threat model, recipe, policy
* `holdfast.artifacts`   documents that flow between the steps, and how they lie on disk
* `holdfast.statistics`  confidence bounds, for all of them
* `holdfast.data`        snapshot, schema, drift             (environment `data`: TFDV, Evidently)
* `holdfast.model`       baseline, scan, train, backdoor, attack, certify, register
                         (environment `model`: torch, ART, MLflow)
* `holdfast.serving`     predictor, rollout                  (environment `serving`: MLServer, Envoy)
* `holdfast_gates`       the policy gate: checks, decision
* `holdfast_pipelines`   the pipelines, and running them without a cluster
* `holdfast.cli`         the command line; a step's own commands are in its folder (`command.py`); what containers call

`holdfast.load_model("models:/NAME@champion")` gives the champion, verified, to a program.
"""

from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def load_model(uri: str, *, tracking: str | None = None, trust: Path | None = None) -> Any:
    """The model of `models:/NAME@ALIAS` or `models:/NAME/VERSION` in MLflow, after every byte of it was verified.

    With `trust` (a `trust.yaml`) the signatures behind it must be there, too. Its `predict(rows)` is that of
    `holdfast.model.register.pyfunc.PyfuncModel`, and `load_model` there has every error.
    """
    from importlib import import_module  # by name: what every module imports must not import one of them

    return import_module("holdfast.model.register.pyfunc").load_model(uri, tracking=tracking, trust=trust)
