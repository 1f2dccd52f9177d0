"""Operations on numbers alone: what comes out is the same at both sizes, if no length enters and parameters are the same."""

from .rules import Pair
from .values import A_SIZE, BY_SIZE, SHAPED, Obstacle, Value, number

_NAMES = """abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj convert_element_type copy copy_p
    cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic
    lt max min mul ne neg nextafter not or pow real reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic
    shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor"""
_ELEMENTWISE = frozenset(_NAMES.split())
_MOVING = ("reshape", "squeeze", "transpose", "slice", "dynamic_slice")
# Of arrays that are constant they make constant arrays, whatever their lengths are.
_CONSTANT = frozenset([*_MOVING, "reduce_max", "reduce_min", "reduce_and", "reduce_or"])
_LINEAR = ("neg", "copy", "convert_element_type", "real", "stop_gradient", "reduce_sum")
# What makes zero of zeros, with how many of its inputs have to be zero; `None` for all.
_KEEP_ZERO = {
    **dict.fromkeys([*_MOVING, *_LINEAR, "square", "integer_pow", "abs", "sqrt", "sign"], 1),
    **dict.fromkeys(["add", "sub", "add_any", "dynamic_update_slice"], 2),
    "concatenate": None,
}


def numbers(pair: Pair, inputs: list[Value]) -> list[Value]:
    """What comes out of an operation on numbers."""
    name, shapes = pair.name, [first for first, _ in pair.ins]
    if name in ("mul", "and") and any(a.is_zero for a in inputs):
        return [number(is_zero=True)]
    if name in _KEEP_ZERO and all(a.is_zero for a in inputs[: _KEEP_ZERO[name]]) and pair.one.params.get("y", 1) > 0:
        return [number(is_zero=True)]
    constant = name in _CONSTANT and not any(a.varies for a in inputs)
    equal = all(first == second for first, second in pair.ins)
    same_shapes = equal and all(first == second for first, second in pair.outs)
    if not constant and not pair.has_same_params(sizes=same_shapes):
        raise Obstacle(BY_SIZE)
    if constant:
        return [number()]
    if name == "broadcast_in_dim":
        (a, *_), dims, (out, _) = inputs, pair.one.params["broadcast_dimensions"], pair.outs[0]
        return [number((dims[i] for i in a.varies if shapes[0][i] == out[dims[i]]), is_zero=a.is_zero)]
    if inputs and name in _ELEMENTWISE and all(shape in ((), pair.outs[0][0]) for shape in shapes):
        return [number(frozenset().union(*(a.varies for a in inputs)))]
    if not same_shapes:
        raise Obstacle(SHAPED if equal or name in _CONSTANT else A_SIZE)
    return [number(range(len(first))) for first, _ in pair.outs]
