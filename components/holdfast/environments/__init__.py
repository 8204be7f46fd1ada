"""The environments of the steps on a machine without a container engine: where each lies, and how one is made."""

from holdfast.environments.create import create
from holdfast.environments.places import LIBRARIES, EnvironmentFolder, checkout, how_to_get, interpreter

__all__ = ["LIBRARIES", "EnvironmentFolder", "checkout", "create", "how_to_get", "interpreter"]
