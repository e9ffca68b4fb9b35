"""What numba does not say to its compiler about memory: that arrays do not overlap, and what is read soon.

Without the first a loop over five arrays gets no vector code (LLVM gives up on the checks it would need at run time);
without the second a core waits for memory at the end of every page. Each of the seven arrays of a step has a pair of
functions of its own here, whose loads and stores carry a name that tells LLVM so (its "scoped noalias" metadata).
Indices are not checked and do not wrap.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

STRIP = 64
"""Elements between two requests for memory: four cache lines of float32."""

AHEAD = 512
"""Elements by which a request precedes the use; of 128 to 1,024 the best, by 2 % before the next."""

_LINE = 16
_ARRAYS = ("x", "g", "m", "v", "u", "x_sums", "u_sums")


def _pointer(context, builder, array_type, array, index):
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _name(module, instruction, name: str) -> None:
    """Attach metadata: this access is to the array `name`, and to none of the others."""
    domain = module.add_metadata(["lambert.optim"])
    scopes = {other: module.add_metadata([f"lambert.optim.{other}", domain]) for other in _ARRAYS}
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[name]]))
    instruction.set_metadata("noalias", module.add_metadata([scopes[other] for other in _ARRAYS if other != name]))


def accessors(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Functions for compiled code, `load(array, i)` and `store(array, i, value)`, of the array called `name`."""

    @intrinsic
    def load(typing_context, array, index):
        def generate(context, builder, signature, arguments):
            pointer = _pointer(context, builder, signature.args[0], *arguments)
            value = builder.load(pointer, align=signature.args[0].dtype.bitwidth // 8)
            _name(builder.module, value, name)
            return value

        return array.dtype(array, index), generate

    @intrinsic
    def store(typing_context, array, index, value):
        def generate(context, builder, signature, arguments):
            pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
            instruction = builder.store(arguments[2], pointer, align=signature.args[0].dtype.bitwidth // 8)
            _name(builder.module, instruction, name)
            return context.get_dummy_value()

        return types.void(array, index, array.dtype), generate

    return load, store


@intrinsic
def request(typing_context, array, index):
    """For compiled code, `request(array, i)`: fetch the `STRIP` elements from `i` on, which may lie outside."""

    def generate(context, builder, signature, arguments):
        byte_pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte_pointer, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0i8")
        for line in range(0, STRIP, _LINE):
            start = builder.add(arguments[1], ir.Constant(arguments[1].type, line))
            pointer = builder.bitcast(_pointer(context, builder, signature.args[0], arguments[0], start), byte_pointer)
            # For reading, into every level of the cache, data rather than code.
            builder.call(prefetch, [pointer, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate
