"""The non-local operation: the definition, exact fast algorithms, and the table that chooses among them."""

from nlnet.ops.algorithms import choose_algorithm
from nlnet.ops.operation import nonlocal_operation

__all__ = ["choose_algorithm", "nonlocal_operation"]
