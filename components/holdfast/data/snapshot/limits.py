"""How large a delivery may become when it is decoded."""

from holdfast.workload.schema import DataConfig

RATIO = 50
SMALL = 2**24
"""What every file may become."""


def decoded_limit(config: DataConfig, delivered: int) -> int:
    """Bytes that a file of `delivered` bytes may become: `data.max_bytes`, or less where the workload leaves that out.

    A small file that becomes gigabytes is an attack more often than data: fifty times the file, or 16 MiB. A
    workload that gives another `data.max_bytes` than the default is taken at its word.
    """
    if config.max_bytes != DataConfig.model_fields["max_bytes"].default:
        return config.max_bytes
    return min(config.max_bytes, max(SMALL, RATIO * delivered))
