"""A network in its smallest exact form: an ordinary small one, and what is known of the rest."""

from typing import Any, ClassVar, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .. import _checks
from .._norms import norm, root
from .._public import public
from ..problems import AbstractProblem, Penalised
from .base import AbstractChain, AbstractModel, refuse_matrix_penalty
from .chains import chain

Number = Float[ArrayLike, ""] | Int[ArrayLike, ""]


class Rest(eqx.Module):
    """What the core leaves out of one layer, `W_l = S_{l-1} core_l S_l^T + rest_l`.

    **Fields:**

    - `norm`: `||rest_l||_F` at the start.
    - `factor`: `rest_l(t) = factor rest_l(0)`: 1 unless an optimizer decays weights.
    - `gram`: `(||A||^2, ||B||^2, <A, B>)` for the imbalance behind this layer, with `A = rest_l^T rest_l` and
        `B = rest_{l+1} rest_{l+1}^T`. What is frozen of the first layer does not count here.
    """

    norm: Float[Array, ""]
    factor: Float[Array, ""]
    gram: Float[Array, "3"]

    @classmethod
    def of(cls, size: Float[Array, ""], gram: Float[Array, "3"] | None = None) -> "Rest":
        """That of a start, of this norm."""
        return cls(size, jnp.ones_like(size), jnp.zeros(3, size.dtype) if gram is None else gram)


class Bases(eqx.Module):
    """What it takes to go back from the reduced coordinates of one start.

    **Fields:** `Phi1`, shape (n, r), or `None` where all inputs are kept; `hidden`, an orthonormal basis of shape (d_l, k_l) for
    each hidden layer, or `None` for one that was not reduced; `rest`, what the core leaves out of each layer, in its own shape,
    or `None` where that is nothing.
    """

    Phi1: Float[Array, "n r"] | None
    hidden: tuple[Float[Array, "_ _"] | None, ...]
    rest: tuple[Float[Array, "_ _"] | None, ...]


class Outputs(eqx.Module):
    """What the data do not see of the last layer, `W_L = core_L Psi1^T + factor outside^T`.

    **Fields:** `Psi1`, an orthonormal basis of the outputs that they see; `outside`, in the coordinates of the core's columns.
    """

    Psi1: Float[Array, "m s"]
    outside: Float[Array, "m k"]

    @classmethod
    def split(
        cls, problem: AbstractProblem, V: Float[Array, "m k"]
    ) -> "tuple[Float[Array, 's k'], Outputs | None, Rest | None]":
        """The moving rows of V, what it takes to have all of them again, and what is left out of the last layer."""
        _, Psi1 = problem.restrict_outputs()
        if Psi1 is None:
            return V, None, None
        Psi1 = Psi1.astype(V.dtype)
        moving = Psi1.T @ V
        outside = V - Psi1 @ moving
        return moving, cls(Psi1, outside), Rest.of(norm(outside))


class Reduction(AbstractModel):
    """A network of any width in its smallest exact form, made by `reduce` or drawn by `init.gaussian_core`.

    The core is an ordinary network, which moves on `problem.restrict()` as the full one does on the problem: with
    `[U1; V] = [core.U; core.V] Q^T` and orthonormal Q for two layers, `core_l = S_{l-1}^T W_l S_l` for more. Products, singular
    values and the imbalance spectrum are the full network's own, and the cost does not depend on its width. The solvers take a
    reduced network in the place of a full one, with the same problem.

    **Fields:**

    - `core`: a `TwoLayer` with U of shape (r, k) and V of shape (m, k), a `SymmetricFactors` with (n, k) or a `DeepLinear`.
    - `width`: h, a number and not a shape; `None` for other than two layers.
    - `num_frozen`: n - r, likewise a number.
    - `frozen`: shape (f, k): `U2 Q = O frozen` with some orthonormal O, for the rows U2 of the first layer that the data do not
        reach, so that `U2 V^T` and `frozen V^T` have the same singular values; `None` where there are none or they are unknown.
    - `rest`: a `Rest` for each layer, or `None` for one that is all in the core. By default that of `frozen`.
    - `outputs`: an `Outputs` where the data do not see all of them, as in matrix sensing: the core's last layer then has s
        columns only. `layers`, `U1`, `V` and `product()` have all m.
    - `bases`: what it takes to go back to the full size, or `None` for a core drawn at a width, which has none.
    - `coordinates`: those of the problem that it was made for; it fits no problem with others.

    **Raises:** `ValueError` for a problem of other sizes or other data, wherever it is used.

    **Source:** exact for every dynamics that multiplies the layers by matrices of the data's coordinates and of each other.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.Reduction(ld.TwoLayer(0.2 * jnp.eye(2), 0.1 * jnp.eye(2)), width=1e9)
        >>> print(float(start.width), jnp.diag(start.product()), problem.loss(start.product()))
        1000000000.0 [0.02 0.02] 2.440
        >>> print(jnp.diag(start.velocity(problem).core.U))  # (sigma - u v) v, whatever the width
        [0.198 0.098]
    """

    core: AbstractChain
    width: Float[Array, ""] | None
    num_frozen: Float[Array, ""]
    frozen: Float[Array, "f k"] | None
    rest: tuple[Rest | None, ...]
    bases: Bases | None
    coordinates: Float[Array, " r"] | None
    outputs: Outputs | None
    is_reduced: ClassVar[bool] = True
    is_gradient_flow: ClassVar[bool] = True

    @public
    def __init__(
        self,
        core: AbstractChain,
        width: Number | None = None,
        num_frozen: Number = 0,
        frozen: Float[ArrayLike, "f k"] | None = None,
        *,
        rest: tuple[Rest | None, ...] | None = None,
        bases: Bases | None = None,
        coordinates: Float[Array, " r"] | None = None,
        outputs: Outputs | None = None,
    ):
        dtype = jax.tree.leaves(core)[0].dtype
        self.core = core
        self.width = None if width is None else jnp.asarray(width, dtype)
        self.num_frozen = jnp.asarray(num_frozen, dtype)
        self.frozen = None if frozen is None else jnp.asarray(frozen, dtype)
        if rest is None:
            first = None if self.frozen is None else Rest.of(norm(self.frozen))
            rest = (first, *(None,) * (len(core.layers) - 1))
        self.rest, self.bases, self.outputs = rest, bases, outputs
        self.coordinates = None if coordinates is None else jax.lax.stop_gradient(coordinates)

    @property
    def layers(self):
        """Those of the core, with all outputs: a tuple of matrices."""
        return self._all_outputs(self.core).layers

    @property
    def U1(self):
        """U of a core of two layers, shape (r, k): Phi1^T U of the full network, up to the rotation of its columns."""
        return self.core.U  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def V(self):
        """V of a core of two layers, shape (m, k), up to the same rotation."""
        return self._all_outputs(self.core).V  # pyright: ignore[reportAttributeAccessIssue]

    def _all_outputs(self, core: AbstractChain) -> AbstractChain:
        """A core with the outputs that do not move."""
        if self.outputs is None:
            return core
        *layers, last = core.layers
        still = self._rest(-1).factor * self.outputs.outside.T
        return core.with_layers([*layers, last @ self.outputs.Psi1.T + still])

    # -- as a network --------------------------------------------------------------------------------------------------

    def parts(self, problem: AbstractProblem) -> tuple[AbstractChain, AbstractProblem]:
        small = problem.restrict()[0] if self.core.leaves_inputs else problem
        return self.core, small if self.outputs is None else small.restrict_outputs()[0]

    def with_core(self, core: AbstractModel, remainder: Float[Array, ""] | None = None) -> "Reduction":
        moved = eqx.tree_at(lambda tree: tree.core, self, core)
        if remainder is None:
            return moved
        rest = tuple(part and Rest(part.norm, remainder * part.factor, part.gram) for part in self.rest)
        return eqx.tree_at(lambda tree: tree.rest, moved, rest)

    def product(self) -> Float[Array, "r m"]:
        """Phi1^T Theta, the part of the end-to-end matrix that the data see; Theta itself for tied layers."""
        return self._all_outputs(self.core).product()

    def moving(self) -> "Reduction":
        return jax.tree.map(lambda _: False, self).with_core(self.core.moving())

    def moving_layers(self, problem: AbstractProblem) -> tuple[Float[Array, "_ _"], ...] | None:
        return self.layers if self.core.leaves_inputs else self.core.moving_layers(problem)

    def reduced_product(self, problem: AbstractProblem) -> Float[Array, "r m"]:
        return self.product() if self.core.leaves_inputs else self.core.reduced_product(problem)

    def velocity(self, problem: AbstractProblem) -> "Reduction":
        if problem.penalty is not None:
            self.check_penalty(problem.penalty)
        core, small = self.parts(problem)
        still = jax.tree.map(jnp.zeros_like, self)
        if self.outputs is not None:
            still = eqx.tree_at(lambda tree: tree.outputs.Psi1, still, self.outputs.Psi1)
        return still.with_core(core.velocity(small))

    def sizes(self, problem: AbstractProblem) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        name, expected, given = self._all_outputs(self.core).sizes(problem)
        return name, ((problem.rank, problem.num_outputs) if self.core.leaves_inputs else expected), given

    def check_data(self, problem: AbstractProblem) -> None:
        pairs = [(self.coordinates, problem.coordinates)]
        if self.outputs is not None:
            Psi1 = problem.restrict_outputs()[1]
            pairs.append((self.outputs.Psi1, jnp.zeros(0) if Psi1 is None else Psi1))
        if any(_other(*pair) for pair in pairs):
            raise ValueError(
                "The model does not fit the problem: it was reduced to the coordinates of other data of the same rank. Reduce "
                "the full network to this problem, or draw a core for it."
            )

    def check_penalty(self, penalty: Penalised) -> None:
        refuse_matrix_penalty(penalty)
        self.core.check_penalty(penalty)

    def velocity_norm(self, problem: AbstractProblem) -> Float[Array, ""]:
        core, small = self.parts(problem)
        moved, terms = core.velocity_norm(small), problem.penalty
        if terms is None or terms.weight_decay is None:
            return moved
        # Without its core, what is left is all that only the decay moves.
        rest = root(self.with_core(jax.tree.map(jnp.zeros_like, core)).squared_norm(problem))
        return norm(moved, terms.weight_decay * rest)

    def squared_norm(self, problem: AbstractProblem) -> Float[Array, ""]:
        if self.core.leaves_inputs and self.rest[0] is None and problem.num_frozen > 0:
            self._refuse_unknown()
        return self.core.squared_norm(problem) + sum((part.factor * part.norm) ** 2 for part in self.rest if part)

    def saddle(self, problem: AbstractProblem) -> str | None:
        core, small = self.parts(problem)
        return core.saddle(small)

    def fastest_rate(self, problem: AbstractProblem) -> Float[Array, ""] | None:
        core, small = self.parts(problem)
        return core.fastest_rate(small)

    def scaled(self, factor: Float[Array, ""]) -> "Reduction":
        def grow(part: Rest | None) -> Rest | None:
            return part and Rest(factor * part.norm, part.factor, factor**4 * part.gram)

        frozen = None if self.frozen is None else factor * self.frozen
        outputs = self.outputs and Outputs(self.outputs.Psi1, factor * self.outputs.outside)
        options = {"rest": tuple(map(grow, self.rest)), "coordinates": self.coordinates, "outputs": outputs}
        if self.bases is not None:
            rest = tuple(None if part is None else factor * part for part in self.bases.rest)
            options["bases"] = Bases(self.bases.Phi1, self.bases.hidden, rest)
        return type(self)(self.core.scaled(factor), self.width, self.num_frozen, frozen, **options)

    # -- what is left out ----------------------------------------------------------------------------------------------

    def frozen_product(self, problem: AbstractProblem) -> Float[Array, "f m"] | None:
        if self.frozen is not None:
            return self._rest(0).factor * chain((self.frozen, *self.layers[1:]))
        if not self.core.leaves_inputs:
            return self.core.frozen_product(problem)
        if problem.num_frozen > 0:
            self._refuse_unknown()
        return None

    def full_product(self, problem: AbstractProblem, key: Any = None) -> Float[Array, "n m"]:
        if self.bases is not None:
            return self.lift().product()
        if not self.core.leaves_inputs:
            return self.product()
        seen = problem.from_data(self.product())
        if problem.num_frozen == 0:
            return seen
        if key is None:
            raise ValueError(
                "An observable on other data needs all of Theta, but the model was drawn without the rows that its own data do "
                "not see: use a start of full size, or give `on` a key."
            )
        outside: Any = self.frozen_product(problem)
        # A uniform frame outside of the data's: that of Gaussian columns, with positive diagonal of R.
        columns = jax.random.normal(key, (problem.num_inputs, outside.shape[0]), outside.dtype)
        Q, R = jnp.linalg.qr(columns - problem.from_data(problem.to_data(columns)))
        return seen + (Q * jnp.sign(jnp.diagonal(R))) @ outside

    def frozen_rows(self, problem: AbstractProblem) -> tuple[Float[Array, "f k"], Float[Array, ""]]:
        if self.frozen is None:
            self._refuse_unknown()
        rest = self._rest(0)
        return rest.factor * self.frozen, rest.factor * rest.norm

    def rest_drift(self, i: int) -> Float[Array, ""] | None:
        if not any(self.rest[1:]):
            return None
        # What weight decay does to the part of the layers that the cores leave out.
        here, behind = self._rest(i), self._rest(i + 1)
        A, B, AB = here.gram
        a, b = here.factor**2 - 1, behind.factor**2 - 1
        return root(a**2 * A + b**2 * B - 2 * a * b * AB)

    def _rest(self, i: int) -> Rest:
        """What is left out of layer i, also where that is nothing."""
        part = self.rest[i]
        return Rest.of(jnp.zeros_like(self.num_frozen)) if part is None else part

    def _refuse_unknown(self) -> NoReturn:
        raise ValueError(
            "This Reduction does not know the frozen part U2 of its first layer: make it with `init.gaussian_core` or `reduce`, "
            "or pass `frozen=`."
        )

    # -- for optimizers ------------------------------------------------------------------------------------------------

    def to_state(self) -> AbstractChain:
        """The core as an optimizer sees it: of the full network's kind, so that masks and labels fit, with layers of its norms.

        One more row and column of a layer hold the norm of its rest, on which weight decay acts as it does on the rest.
        """
        if not any(self.rest):
            return self.core
        pairs = zip(self.padded(self.core).layers, self.rest, strict=True)
        layers = [W if part is None else W.at[-1, -1].set(part.factor * part.norm) for W, part in pairs]
        return self.core.with_layers(layers)

    def from_state(self, state: AbstractChain) -> "Reduction":
        """The reduced network that one made by `to_state` stands for."""
        expected = jax.eval_shape(self.to_state)
        shapes = [[leaf.shape for leaf in jax.tree.leaves(one)] for one in (state, expected)]
        if type(state) is not type(expected) or shapes[0] != shapes[1]:
            raise ValueError(
                f"Argument `state` must have the kind and shapes of what `to_state` makes, but is {state}."
            )
        if not any(self.rest):
            return self.with_core(state)
        layers, rest = [], []
        for W, part, inside in zip(state.layers, self.rest, self.core.layers, strict=True):
            layers.append(W[: inside.shape[0], : inside.shape[1]])
            if part is not None:
                factor = jnp.where(part.norm > 0, W[-1, -1] / jnp.where(part.norm > 0, part.norm, 1), 1.0)
                part = Rest(part.norm, factor, part.gram)
            rest.append(part)
        moved = self.with_core(self.core.with_layers(layers))
        return eqx.tree_at(lambda tree: tree.rest, moved, tuple(rest))

    def state_velocity(self, problem: AbstractProblem) -> AbstractModel:
        core, small = self.parts(problem)
        velocity = self.padded(core.velocity(small))
        if problem.penalty is None or problem.penalty.weight_decay is None:
            return velocity
        decay = problem.penalty.weight_decay
        rest = jax.tree.map(jnp.subtract, self.to_state(), self.padded(self.core))
        return jax.tree.map(lambda moved, weight: moved - decay * weight, velocity, rest)

    def padded(self, core: AbstractChain) -> AbstractChain:
        """A core with a row and a column of zeros at each layer that has a rest."""
        if not any(self.rest):
            return core
        sides = [part is not None for part in self.rest]
        pads = [int(a or b) for a, b in zip((False, *sides), (*sides, False), strict=True)]
        layers = [jnp.pad(W, ((0, pads[i]), (0, pads[i + 1]))) for i, W in enumerate(core.layers)]
        return core.with_layers(layers)

    # -- back to the full size -----------------------------------------------------------------------------------------

    def lift(self, core: AbstractChain | None = None) -> AbstractChain:
        """The full-size network, `W_l = S_{l-1} core_l S_l^T + factor_l rest_l`, of this core or of where it has moved."""
        core = self.core if core is None else core
        if self.bases is None:
            raise ValueError(
                "A core drawn at a given width has no full size to go back to: start from `init.gaussian`."
            )
        if [W.shape for W in core.layers] != [W.shape for W in self.core.layers]:
            sizes = ([W.shape for W in x.layers] for x in (core, self.core))
            raise ValueError("Argument `core` has layers of shapes {}, but the reduction is one to {}.".format(*sizes))
        bases = self.bases
        layers = []
        core = self._all_outputs(core)
        sides = zip(core.layers, (bases.Phi1, *bases.hidden), (*bases.hidden, None), strict=True)
        for i, (W, left, right) in enumerate(sides):
            W = W if right is None else W @ right.T
            W = W if left is None else left @ W
            part = bases.rest[i]
            layers.append(W if part is None else W + self._rest(i).factor * part)
        return core.with_layers(layers)


def _other(given: Array | None, expected: Array | None) -> bool:
    """Whether concrete coordinates are those of other data."""
    if given is None or expected is None or not all(map(eqx.is_array, (given, expected))):
        return False
    if given.shape != expected.shape:
        return True
    if _checks.is_traced(given, expected):
        return False
    one, other = np.asarray(given), np.asarray(expected)
    # Those of other data differ in all digits; those of the same data in another precision or by a small shift do not.
    return not np.linalg.norm(one - other) <= 1e-2 * np.linalg.norm(other)
