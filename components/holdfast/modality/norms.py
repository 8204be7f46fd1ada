"""The perturbation sets: one class per norm, in a module of its own, and one row here. Importing this is light."""

from typing import TYPE_CHECKING

from holdfast.artifacts.documents import Norm

if TYPE_CHECKING:
    from holdfast.modality.ball import Ball

BOXES: frozenset[Norm] = frozenset({"linf"})
"""Norms whose ball is a box, which interval bounds and the choice of a category need."""


def ball_class(norm: Norm) -> "type[Ball]":
    """The class of a norm's perturbation sets; imports torch."""
    from holdfast.modality.edits import Edits
    from holdfast.modality.l2 import L2
    from holdfast.modality.linf import Linf

    rows: tuple[type[Ball], ...] = (Linf, L2, Edits)
    return {row.norm: row for row in rows}[norm]
