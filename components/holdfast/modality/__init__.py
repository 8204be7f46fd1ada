"""What Holdfast knows about each kind of input: one module per modality behind the protocol of `protocol.py`.

Steps and methods ask the modality instead of comparing its name. Importing this is light: arrays and documents only.
"""

from holdfast.artifacts.documents import Modality
from holdfast.modality.image import ImageInput
from holdfast.modality.protocol import InputModality
from holdfast.modality.tabular import TableInput
from holdfast.modality.text import TextInput

MODALITIES: dict[Modality, InputModality] = {found.name: found for found in (ImageInput(), TableInput(), TextInput())}


def modality_of(name: Modality) -> InputModality:
    """The modality of this name."""
    return MODALITIES[name]
