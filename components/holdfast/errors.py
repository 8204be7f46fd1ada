"""What can go wrong, as one tree.

* HoldfastError            expected failures: one line for the person at the pod's log, exit code 1
  + InputError             the user's data or model file cannot be used as it is
    - LimitError           it is larger than the limit that is checked before reading
  + WorkloadError          a YAML file (workload, policy, plan) is not valid
  + ArtifactError          an artifact is incomplete, altered, or of another kind
    - IntegrityError       bytes do not have the digest that was promised
  + ModelError             the network does not behave as its workload describes it
  + RegistryError          MLflow cannot be reached or refuses
  + RefusedError           a model without a passing verdict for its very bytes (exit code 3)
    - WaiverEndedError     its verdict rests on a waiver that ended
  + RolloutError           a rollout cannot start or cannot go on
    - ClusterError         a cluster's API or metrics refuse, do not answer, or cannot be true
      . KubeError          the API refuses (kubernetes/api.py)
      . HttpError          no whole answer (http_client.py)
      . PluginError        a kubeconfig's plug-in gives no credential (kubernetes/exec_plugin.py)
  + FencedError            another driver has taken the rollout over; this one must not touch it any more
  + RunError               a pipeline run failed in one of its steps
    - StepError            that step, its exit code and its last words (holdfast_pipelines/local.py)
  + SetupError             an environment of the steps cannot be made
  + WrongEnvironmentError  a command was started by a Python without its libraries (exit code 2)
  + StoppedError           training was told to stop and kept a checkpoint (model/train/checkpoint.py, exit code 143)

A message names the file, what was expected and what was found, and what to do where that is known.
A bug is not in this tree: it keeps its traceback.
"""


class HoldfastError(Exception):
    """An expected failure; its message is one line for a person."""

    exit_code = 1


class InputError(HoldfastError):
    """The user's data or model file cannot be used as it is."""


class LimitError(InputError):
    """The input is larger than the limit that is checked before reading."""


class WorkloadError(HoldfastError):
    """A YAML file is not valid."""

    exit_code = 2


class WrongEnvironmentError(HoldfastError):
    """A command was started by a Python without its libraries."""

    exit_code = 2


class ArtifactError(HoldfastError):
    """An artifact is incomplete, altered, or of another kind."""


class IntegrityError(ArtifactError):
    """Bytes do not have the digest that was promised."""


class ModelError(HoldfastError):
    """The network does not behave as its workload describes it."""


class RegistryError(HoldfastError):
    """MLflow cannot be reached or refuses."""


class RefusedError(HoldfastError):
    """A model without a passing verdict for its very bytes."""

    exit_code = 3


class WaiverEndedError(RefusedError):
    """The verdict on a model rests on a waiver that ended."""


class RolloutError(HoldfastError):
    """A rollout cannot start or cannot go on."""


class FencedError(HoldfastError):
    """Another driver has taken the rollout over; this one must not touch it any more.

    No RolloutError: what may pass is tried again, this is not.
    """


class ClusterError(RolloutError):
    """A cluster's API or metrics refuse, do not answer, or cannot be true."""


class RunError(HoldfastError):
    """A pipeline run failed in one of its steps."""


class SetupError(HoldfastError):
    """An environment of the steps cannot be made."""
