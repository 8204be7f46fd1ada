"""The wheel's long description: README, whose links lead somewhere from any page that shows it.

It lies here because this folder is copied wherever a wheel is built.
"""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")
_IMAGE = re.compile(r"!\[[^]]*\]\((?![a-z]+:)([^)\s]+)\)")


class LongDescription(MetadataHookInterface):
    """Sets `readme`, which pyproject.toml leaves to it."""

    def update(self, metadata: dict) -> None:
        """Adds the README with absolute links."""
        project, text = metadata["urls"]["Repository"], (Path(self.root) / "README.md").read_text()
        metadata["readme"] = {"content-type": "text/markdown", "text": with_absolute_links(text, project)}


def with_absolute_links(text: str, project: str) -> str:
    """Markdown in which relative links and images begin with `project`, a repository's address."""
    images = _IMAGE.sub(lambda found: found[0].replace(f"({found[1]})", f"({project}/raw/main/{found[1]})"), text)
    return _LINK.sub(rf"{project}/blob/main/\1", images)
