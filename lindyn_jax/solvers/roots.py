"""The root finder of diffrax's implicit methods with the tolerance of the steps: relative to the weights, none absolute."""

import diffrax
import equinox as eqx
import jax
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Float

from .control import relative_size


class ScaledChord(diffrax.VeryChord):
    """`diffrax.VeryChord` whose corrections are measured as errors of steps are, by `relative_size` of the stage.

    **Args:** as for `diffrax.VeryChord`; `rtol` and `atol` are those of the steps.
    """

    rtol: Float[Array, ""] | float
    atol: Float[Array, ""] | float

    def step(self, fn, y, args, options, state, tags):
        del options, tags
        # diffrax's own arguments of the stage equation: (..., the stage without its implicit part, args, h).
        base, length = args[-3], jax.lax.stop_gradient(args[-1])
        fx, aux = fn(y, args)
        jac, linear_state = state.linear_state
        linear_state = jax.lax.stop_gradient(linear_state)
        solution = lx.linear_solve(jac, fx, self.linear_solver, state=linear_state, throw=False)
        diff = solution.value
        new = jax.tree.map(lambda a, b: a - b, y, diff)
        # With slopes for unknowns (8 arguments) rather than increments (7) a correction counts h times.
        size = jax.tree.map(lambda d: d * length, diff) if len(args) == 8 else diff
        moved = jax.tree.map(lambda a, b: a + b, base, size)
        ratio = relative_size(size, base, moved, self.rtol, self.atol)
        state = eqx.tree_at(
            lambda s: (s.diff, s.diffsize, s.diffsize_prev, s.result, s.step),
            state,
            (
                diff,
                ratio.astype(state.diffsize.dtype),
                state.diffsize,
                optx.RESULTS.promote(solution.result),
                state.step + 1,
            ),
        )
        return new, state, aux
