"""The options about a cluster that `compile` and `submit` share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

_FILE = "settings"
_OPTIONS: dict[str, tuple[Any, Any]] = {
    _FILE: (Annotated[Path | None, typer.Option(help="YAML file with all of these settings, for a whole team.")], None),
    "registry": (Annotated[str | None, typer.Option(help="HOST/PATH that the images are pulled from.")], None),
    "tag": (Annotated[str | None, typer.Option(help="Immutable image tag; the version when left out.")], None),
    "image": (
        Annotated[
            list[str], typer.Option(metavar="ENV=IMAGE", help="The whole name of the data, model or serving image.")
        ],
        [],
    ),
    "namespace": (Annotated[str | None, typer.Option(help="Of the runs, on a Kubeflow of many users.")], None),
    "ca_file": (Annotated[Path | None, typer.Option(help="Certificates (PEM) of the API.")], None),
    "threads": (
        Annotated[int | None, typer.Option(help="Of each step; 1 when left out, as on a laptop.", min=1)],
        None,
    ),
    "gpu": (Annotated[bool, typer.Option(help="Ask for a GPU for scan, train, backdoor, attack and certify.")], False),
    "resources": (
        Annotated[list[str], typer.Option(metavar="STEP=CPU,MEMORY[,GPUS]", help="Size of a step's pod.")],
        [],
    ),
    "shards": (
        Annotated[list[str], typer.Option(metavar="STEP=N", help="Pods that share the work of attack or certify.")],
        [],
    ),
    "timeout": (Annotated[list[str], typer.Option(metavar="STEP=TIME", help="How long a step may run: 90m, 6h.")], []),
    "volume": (
        Annotated[
            list[str],
            typer.Option(metavar="CLAIM:PATH[:STEP,…]", help="A volume claim for all, or these, steps."),
        ],
        [],
    ),
    "checkpoint_volume": (
        Annotated[str | None, typer.Option(help="The volume claim on which train keeps its checkpoints.")],
        None,
    ),
    "cache_volume": (
        Annotated[str | None, typer.Option(help="The volume claim on which steps keep what they made, for reuse.")],
        None,
    ),
    "node_selector": (
        Annotated[list[str], typer.Option(metavar="LABEL=VALUE", help="Nodes of the steps that ask for a GPU.")],
        [],
    ),
    "toleration": (
        Annotated[list[str], typer.Option(metavar="KEY[=VALUE][:EFFECT]", help="Taint of the nodes of these steps.")],
        [],
    ),
    "source_secret": (
        Annotated[
            list[str],
            typer.Option(metavar="SECRET:KEY=VARIABLE,…", help="Credentials of the store or database of the data."),
        ],
        [],
    ),
    "source_identity": (
        Annotated[bool, typer.Option(help="The pods' own account may read the store: no secret is needed.")],
        False,
    ),
    "notify": (
        Annotated[
            str | None,
            typer.Option(metavar="URL|secret:NAME/KEY", help="Post how every run ended, as JSON that Slack reads."),
        ],
        None,
    ),
    "when_refused": (
        Annotated[str | None, typer.Option(help="How a run without a model ends: fail (when left out) or succeed.")],
        None,
    ),
}


def with_cluster_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a command whose parameter `settings` is read from a file and from options."""
    own = [one for name, one in inspect.signature(function).parameters.items() if name != _FILE]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        from holdfast_pipelines import cluster as read
        from holdfast_pipelines.cluster import counts, pairs, settings_of, sizes, tolerations, volumes

        options = {name: given.pop(name) for name in _OPTIONS}
        plain = (
            "registry", "tag", "namespace", "ca_file", "threads", "gpu", "checkpoint_volume", "when_refused",
            "source_identity", "cache_volume",
        )  # fmt: skip
        named = {
            "images": pairs(options["image"], "--image"),
            "resources": sizes(options["resources"]),
            "shards": counts(options["shards"], "--shards"),
            "timeouts": pairs(options["timeout"], "--timeout"),
            "volumes": volumes(options["volume"]),
            "node_selector": pairs(options["node_selector"], "--node-selector"),
            "tolerations": tolerations(options["toleration"]),
            "source_secrets": read.source_secrets(options["source_secret"]),
            "notify": read.notifying(options["notify"]),
        }
        function(settings=settings_of(options[_FILE], {name: options[name] for name in plain} | named), **given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(key, keyword, annotation=kind, default=value) for key, (kind, value) in _OPTIONS.items()]
    options = [*(one.replace(kind=keyword) for one in own), *added]
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run
