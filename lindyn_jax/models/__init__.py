"""The models: Equinox modules whose leaves are the weights and which are themselves the state of flow and descent.

Each knows its end-to-end matrix and its velocity under gradient flow; descent uses minus the velocity as the gradient.
"""

from .adapters import Branched, LoRA, gated_inputs
from .base import AbstractChain, AbstractModel, refuse_matrix_penalty
from .chains import chain, chain_gradients
from .deep import DeepLinear
from .diagonal import AbstractDiagonal, Diagonal, DiagonalDifference
from .flows import AbstractFlow, Momentum, Polar
from .reduction import Bases, Outputs, Reduction, Rest
from .single import LinearModel, WideLimit
from .two_layer import SymmetricFactors, TwoLayer

__all__ = [
    "AbstractChain",
    "AbstractDiagonal",
    "AbstractFlow",
    "AbstractModel",
    "Bases",
    "Branched",
    "DeepLinear",
    "Diagonal",
    "DiagonalDifference",
    "LinearModel",
    "LoRA",
    "Momentum",
    "Outputs",
    "Polar",
    "Reduction",
    "Rest",
    "SymmetricFactors",
    "TwoLayer",
    "WideLimit",
    "chain",
    "chain_gradients",
    "gated_inputs",
    "refuse_matrix_penalty",
]
