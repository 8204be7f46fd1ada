"""`holdfast keys` and `holdfast attest`: keys for people and machines, and signing what is there already."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from holdfast.options import TRACKING, KeyName, ResultAsJson, Tracking, print_paths
from holdfast.steps import Role

if TYPE_CHECKING:
    from holdfast.attestation.keys import PublicKey

keys = typer.Typer(help="Make keys that sign statements about artifacts.", no_args_is_help=True)
_ROLES = ", ".join(get_args(Role))


@keys.callback()
def _is_a_group() -> None:
    """Keeps `new` a subcommand."""


@keys.command()
def new(
    out: Annotated[Path, typer.Option(help="Folder that the keys are written to.")],
    role: Annotated[str | None, typer.Option(help=f"Whose key: {_ROLES}.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="One for each role, and a trust.yaml: to try it on one machine.")
    ] = False,
    as_json: ResultAsJson = False,
) -> None:
    """Make a key (ECDSA on P-256): ROLE.pem, which only its owner reads, and ROLE.pub, for the trust policy."""
    from holdfast.attestation.keys import make_key
    from holdfast.attestation.sign import TRUST
    from holdfast.attestation.trust import starter

    if (role is None) is not every:
        raise typer.BadParameter(f"expected --role ROLE or --all; roles: {_ROLES}")
    if role is not None and role not in get_args(Role):
        raise typer.BadParameter(f"expected one of {_ROLES}, found {role!r}", param_hint="--role")
    chosen = get_args(Role) if role is None else (role,)
    made = {name: make_key(out / f"{name}.pem") for name in chosen}
    written = [out / f"{name}{suffix}" for name in made for suffix in (".pem", ".pub")]
    if every:
        (out / TRUST).write_text(starter({name: f"{name}.pub" for name in made}))
        written.append(out / TRUST)
    print_paths(written, as_json)
    if not as_json:
        _explain(made, every)


def _explain(made: "dict[str, PublicKey]", every: bool) -> None:
    from holdfast.progress import say

    for name, key in made.items():
        say(f"{name}: fingerprint {key.fingerprint}")
    if not every:
        say(f"trust.yaml: roles: {{{', '.join(f'{name}: {{keys: [{name}.pub]}}' for name in made)}}}")


def attest(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    key: KeyName,
    attestations: Annotated[
        Path | None, typer.Option(help="Folder of the bundles; `attestations` next to the artifact when left out.")
    ] = None,
    as_json: ResultAsJson = False,
) -> None:
    """Sign the statement of the step that wrote an artifact, and, where it is a gate's pass, the verdict on the model.

    Every byte of the artifact is checked first.
    """
    from datetime import UTC, datetime

    from holdfast.artifacts.folder import load_any
    from holdfast.attestation import sign, store
    from holdfast.attestation.keys import read_signer

    signer = read_signer(key)
    found = load_any(artifact)
    for name in found.document.files:
        found.path(name)
    folder = attestations or artifact.resolve().parent / store.ATTESTATIONS
    print_paths(sign.attest(found, signer, folder, run="", at=datetime.now(UTC)), as_json)


def release(
    version: Annotated[str, typer.Argument(help="NAME@VERSION, such as digits@3.")],
    key: KeyName,
    tracking: Tracking = TRACKING,
    as_json: ResultAsJson = False,
) -> None:
    """Sign that a registered version is the one to serve from now on, also to go back to an older one.

    A statement by the role release, with the next sequence number, in a tag of the version. Readers that demand it
    (`holdfast verify --released`) then refuse every version that was released before. Where the role asks for
    several keys, the next person runs the same command: their key joins the release.
    """
    from dataclasses import asdict

    from holdfast import registry
    from holdfast.attestation.keys import read_signer

    name, at, number = version.rpartition("@")
    if not (name and at and number.isdecimal()):
        raise typer.BadParameter(f"expected NAME@VERSION, found {version!r}")
    made = registry.release(tracking, name, int(number), read_signer(key))
    shown = f"{name} version {made.version}: released, sequence number {made.sequence}"
    typer.echo(json.dumps(asdict(made)) if as_json else shown)


COMMANDS = {"keys": keys, "attest": attest, "release": release}
"""What `holdfast` runs by these names."""
