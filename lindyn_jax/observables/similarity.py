"""What hidden layers make of inputs and of outputs: similarity matrices, and how far they have turned."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._norms import all_finite, norm
from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem
from .coordinates import chains, kind_of_chain
from .registry import observable


@public
def input_gram(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "r r"]:
    """U1 U1^T, how alike the first layer makes the inputs; in the data's coordinates, where X = I has U U^T itself.

    `X U U^T X^T`, the similarity of the samples, is `W S (U1 U1^T) S W^T` with `X = W S Phi1^T`.

    **Raises:** `ValueError` for a network without hidden layers.

    **Notes:** no observable by name: give solvers `observables={"UU": input_gram, "VV": output_gram}`.

    **Source:** Braun et al. (2022), whose W1^T W1 it is.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> model = ld.TwoLayer(jnp.diag(jnp.array([2.0, 1.0])), jnp.eye(2))
        >>> print(ld.observables.input_gram(model, problem))
        [[4. 0.]
         [0. 1.]]
    """
    return _input_gram(model, problem, "input_gram")


@public
def output_gram(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "m m"]:
    """V V^T, how alike the last layer has the outputs.

    **Raises:** `ValueError` for a network without hidden layers.

    **Source:** Braun et al. (2022), whose W2 W2^T it is.

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> model = ld.TwoLayer(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
        >>> print(ld.observables.output_gram(model, problem))
        [[4. 0.]
         [0. 1.]]
    """
    return _output_gram(model, problem, "output_gram")


@observable(
    label="how far the hidden similarity of the samples has turned",
    symbol="1 - cosine of $X U U^T X^T$",
    panel="turn of the similarity matrices",
    log=True,
    needs_start=True,
    kinds=chains,
    convention="1 - cosine to that at the start",
    reduced=True,
)
@public
def input_similarity_distance(model: AbstractModel, problem: AbstractProblem, start: AbstractModel) -> Float[Array, ""]:
    """`1 - <G(0), G>/(||G(0)||_F ||G||_F)` of `G = X U U^T X^T`, the similarity of the samples in the first hidden layer.

    **Raises:** `ValueError` for a network without hidden layers.

    **Source:** representational similarity as in Braun et al. (2022), without the subtraction of means.

    Example:

        >>> problem, start = ld.factorization(jnp.eye(2)), ld.TwoLayer(jnp.eye(2), jnp.eye(2))
        >>> model = ld.TwoLayer(jnp.diag(jnp.array([2.0, 1.0])), jnp.eye(2))
        >>> float(ld.observables.input_similarity_distance(model, problem, start)), 1 - 5 / 34**0.5
        (0.1425, 0.1425)
    """
    s = problem.singular_values[:, None]
    grams = (_input_gram(network, problem, "input_similarity_distance") for network in (model, start))
    distance = _turn(*(s * gram * s.T for gram in grams))
    return jnp.where(all_finite((model, start)), distance, jnp.nan)


@observable(
    label="how far the hidden similarity of the outputs has turned",
    symbol="1 - cosine of $V V^T$",
    panel="turn of the similarity matrices",
    log=True,
    needs_start=True,
    kinds=chains,
    convention="1 - cosine to that at the start",
    reduced=True,
)
@public
def output_similarity_distance(
    model: AbstractModel, problem: AbstractProblem, start: AbstractModel
) -> Float[Array, ""]:
    """`1 - <G(0), G>/(||G(0)||_F ||G||_F)` of `G = V V^T`, the similarity of the outputs in the last hidden layer.

    **Raises:** `ValueError` for a network without hidden layers.

    **Source:** representational similarity as in Braun et al. (2022), without the subtraction of means.

    Example:

        >>> problem, start = ld.factorization(jnp.eye(2)), ld.TwoLayer(jnp.eye(2), jnp.eye(2))
        >>> model = ld.TwoLayer(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(ld.observables.output_similarity_distance(model, problem, start)), 1 - 5 / 34**0.5
        (0.1425, 0.1425)
    """
    # The other layers have no say in it, but nothing is said of a network that is not finite.
    distance = _turn(*(_output_gram(network, problem, "output_similarity_distance") for network in (model, start)))
    return jnp.where(all_finite((model, start)), distance, jnp.nan)


def _input_gram(model, problem, name: str) -> Float[Array, "r r"]:
    first = kind_of_chain(model, problem, name)[0]
    return first @ first.T


def _output_gram(model, problem, name: str) -> Float[Array, "m m"]:
    last = kind_of_chain(model, problem, name)[-1]
    return last.T @ last


def _turn(G: Array, before: Array) -> Float[Array, ""]:
    """1 - cosine without cancellation; zero where either matrix is."""
    size, size_before = norm(G), norm(before)
    absent = (size == 0) | (size_before == 0)
    change = G / jnp.where(size == 0, 1, size) - before / jnp.where(size_before == 0, 1, size_before)
    return jnp.where(absent, 0, norm(change) ** 2 / 2)
