"""Data: what a user names, on the command line or in Python, as arrays X and Y.

A bundled set by its name, an npz archive, a csv table, a pair of npy or IDX files, or data drawn on the spot; and how far they
are from data whose components are learned one by one. Pure NumPy: scikit-learn is imported only for the sets that it carries,
and every way in which a file can be wrong ends in a `DataError` of one sentence.
"""

from ._common import Count, DataError, Dataset, describe
from .covariances import COMPLETIONS, Commutation, commutation
from .drawn import autoencoder, gaussian, low_rank
from .hierarchies import Hierarchy, hierarchy
from .idx import read_idx
from .in_context import in_context
from .loading import KNOWN, load
from .matrices import Matrix, load_matrix
from .semantic import semantic
from .teachers import Teacher, power_law, spiked, teacher

__all__ = [
    "COMPLETIONS",
    "KNOWN",
    "Commutation",
    "Count",
    "DataError",
    "Dataset",
    "Hierarchy",
    "Matrix",
    "Teacher",
    "autoencoder",
    "commutation",
    "describe",
    "gaussian",
    "hierarchy",
    "in_context",
    "load",
    "load_matrix",
    "low_rank",
    "power_law",
    "read_idx",
    "semantic",
    "spiked",
    "teacher",
]
