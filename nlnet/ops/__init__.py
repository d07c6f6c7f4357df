"""Floor 0: the non-local operation."""

from nlnet.ops.cost import choose_algorithm
from nlnet.ops.operation import nonlocal_operation

__all__ = ["choose_algorithm", "nonlocal_operation"]
