"""Non-local neural networks (Wang, Girshick, Gupta, He; arXiv 1711.07971).

Importing this package does no work, not even the import of torch: each public name is fetched on first use,
so that `nlnet --help` answers at once. The names here need torch and jaxtyping alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlnet.attention.observe import attention_row as attention_row
    from nlnet.attention.observe import observe as observe
    from nlnet.block import NonLocalBlock as NonLocalBlock
    from nlnet.insertion.insert import insert_nonlocal as insert_nonlocal
    from nlnet.models.names import list_models as list_models
    from nlnet.ops import nonlocal_operation as nonlocal_operation
    from nlnet.zoo import create_model as create_model

__version__ = "0.1.0"

_HOME = {
    "NonLocalBlock": "nlnet.block",
    "attention_row": "nlnet.attention.observe",
    "create_model": "nlnet.zoo",
    "insert_nonlocal": "nlnet.insertion.insert",
    "list_models": "nlnet.models.names",
    "nonlocal_operation": "nlnet.ops",
    "observe": "nlnet.attention.observe",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'nlnet' has no attribute {name!r}; its public names are {', '.join(_HOME)}")


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
