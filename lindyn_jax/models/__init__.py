"""The models: Equinox modules whose leaves are the weights and which are themselves the state of flow and descent.

Each knows its end-to-end matrix and its velocity under gradient flow; descent uses minus the velocity as the gradient.
"""

from .base import AbstractModel, refuse_matrix_penalty, refuse_penalty
from .chains import chain, chain_gradients
from .deep import DeepLinear
from .reduced import Frozen, ReducedDeepLinear, ReducedTwoLayer, Remainder
from .single import LinearModel, WideLimit
from .two_layer import SymmetricFactors, TwoLayer

__all__ = [
    "AbstractModel",
    "DeepLinear",
    "Frozen",
    "LinearModel",
    "ReducedDeepLinear",
    "ReducedTwoLayer",
    "Remainder",
    "SymmetricFactors",
    "TwoLayer",
    "WideLimit",
    "chain",
    "chain_gradients",
    "refuse_matrix_penalty",
    "refuse_penalty",
]
