"""The tile language in exact arithmetic: what each operator and ``tl`` function of an emitted text means.

A tile is a numpy array: of ``int64`` (offsets), of ``bool`` (masks), or of objects holding real numbers. Scalars are
Python's ``int`` and ``bool``, or one real number. Conversions between floating-point types change nothing. A lane
that a load masks out without saying what it holds is undefined; so is everything computed from it, and no result may
be where the program says otherwise. A mask that depends on one is refused. What is not listed here has no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from verify.exact_memory import Array, Fault, Memory, Pointer, Program


class Numbers(Protocol):
    """A kind of real numbers; ``+ - * /`` and negation are their own."""

    undefined: Any
    bottom: Any
    top: Any
    functions: Mapping[str, Callable[[Any], Any]]

    def working(self) -> Any:
        """The context to compute in."""
        ...

    def integer(self, value: int) -> Any:
        """An integer."""
        ...

    def literal(self, value: float) -> Any:
        """What a literal of the text stands for."""
        ...

    def element(self, value: float) -> Any:
        """An element of an input."""
        ...

    def is_undefined(self, value: Any) -> bool:
        """Whether a number is undefined."""
        ...

    def maximum(self, a: Any, b: Any) -> Any:
        """The larger of two."""
        ...

    def minimum(self, a: Any, b: Any) -> Any:
        """The smaller of two."""
        ...

    def compare(self, operator: str, a: Any, b: Any) -> Any:
        """Whether a comparison holds; undefined if an operand is."""
        ...


@dataclass(frozen=True, slots=True)
class DTypeName:
    """An element type, by its torch and Triton name."""

    name: str

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point type."""
        return "float" in self.name

    def __str__(self) -> str:
        return self.name


def plain(value: Any) -> Any:
    """A scalar in place of an array without dimensions."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    return value.item() if isinstance(value, np.generic) else value


def is_integer(value: Any) -> bool:
    """Whether a value is an integer or a tile of integers."""
    if isinstance(value, np.ndarray):
        return value.dtype == np.int64
    return isinstance(value, int) and not isinstance(value, bool)


def is_condition(value: Any) -> bool:
    """Whether a value is a truth value, or a tile of them."""
    return value.dtype == np.bool_ if isinstance(value, np.ndarray) else isinstance(value, bool)


ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
}


class Tiles:
    """The operators and functions of the tile language on one kind of numbers."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        self.program: Program | None = None
        """The running program."""
        self._undefined = np.frompyfunc(numbers.is_undefined, 1, 1)
        self._maximum = np.frompyfunc(numbers.maximum, 2, 1)
        self._minimum = np.frompyfunc(numbers.minimum, 2, 1)
        self._compare = {o: np.frompyfunc(self._comparison(o), 2, 1) for o in ("<", "<=", ">", ">=", "==", "!=")}
        self._lift = np.frompyfunc(numbers.integer, 1, 1)
        self.functions: Mapping[str, Callable[..., Any]] = {
            "program_id": self._program_id,
            "num_programs": self._num_programs,
            "arange": self._arange,
            "cdiv": self._cdiv,
            "zeros": self._zeros,
            "full": self._full,
            "range": self._range,
            "static_range": self._range,
            "load": self._load,
            "store": self._store,
            "dot": self._dot,
            "trans": self._trans,
            "sum": self._sum,
            "max": self._max,
            "min": self._min,
            "where": self._where,
            "maximum": self._larger,
            "minimum": self._smaller,
            "cast": self.cast,
            **{name: self._unary(np.frompyfunc(f, 1, 1)) for name, f in numbers.functions.items()},
        }
        """By the name in ``triton.language``."""

    # ---------------------------------------------------------------------------------------------- operators

    def real(self, value: Any) -> Any:
        """Integers as real numbers; real numbers as they are."""
        if is_condition(value):
            raise Fault("a truth value is used as a number")
        return plain(self._lift(value)) if is_integer(value) else value

    def binary(self, symbol: str, a: Any, b: Any) -> Any:
        """The result of a binary operator.

        Raises:
            Fault: the operator has no meaning for these operands.
        """
        if isinstance(a, Pointer):
            if symbol != "+" or not is_integer(b):
                raise Fault(f"an address {symbol} something that is no integer")
            return Pointer(a.memory, a.offset + b)
        match symbol:
            case "&" | "|":
                return self._logical(symbol, a, b)
            case "//" | "%":
                return self._divided(symbol, a, b)
            case "**":
                return self._power(a, b)
            case "/":
                return plain(np.true_divide(self.real(a), self.real(b)))
            case _ if symbol in ARITHMETIC and not is_condition(a) and not is_condition(b):
                return plain(ARITHMETIC[symbol](a, b))
            case _:
                raise Fault(f"the operator {symbol} has no meaning here")

    def compare(self, symbol: str, a: Any, b: Any) -> Any:
        """The truth value or mask of a comparison."""
        if is_integer(a) and is_integer(b):
            result: Any = _INTEGER_COMPARISONS[symbol](a, b)
            return plain(result)
        return _mask_if_defined(self._compare[symbol](self.real(a), self.real(b)))

    def negative(self, value: Any) -> Any:
        """Minus a number."""
        return -value if not is_condition(value) else self.real(value)

    def inverted(self, value: Any) -> Any:
        """The opposite of a mask."""
        if not is_condition(value):
            raise Fault("~ of something that is no mask")
        return np.logical_not(value) if isinstance(value, np.ndarray) else not value

    def _comparison(self, symbol: str) -> Callable[[Any, Any], Any]:
        return lambda a, b: self.numbers.compare(symbol, a, b)

    def _logical(self, symbol: str, a: Any, b: Any) -> Any:
        if not (is_condition(a) and is_condition(b)):
            raise Fault(f"{symbol} of something that is no mask")
        return plain(np.logical_and(a, b) if symbol == "&" else np.logical_or(a, b))

    @staticmethod
    def _divided(symbol: str, a: Any, b: Any) -> Any:
        if not (is_integer(a) and is_integer(b)) or np.any(np.less(a, 0)) or np.any(np.less_equal(b, 0)):
            raise Fault(f"{symbol} is for integers, not negative, and a positive divisor")
        return plain(a // b if symbol == "//" else a % b)

    def _power(self, a: Any, b: Any) -> Any:
        root = self.numbers.functions["sqrt"]
        if b == self.numbers.literal(0.5):
            return plain(np.frompyfunc(root, 1, 1)(self.real(a)))
        if b == self.numbers.literal(-0.5):
            return plain(1 / np.frompyfunc(root, 1, 1)(self.real(a)))
        raise Fault("a power other than 0.5 or -0.5")

    # ------------------------------------------------------------------------------------ programs and integers

    def running(self) -> Program:
        """The running program."""
        assert self.program is not None, "tile functions run in a program only"
        return self.program

    def _program_id(self, axis: int) -> int:
        ids = self.running().ids
        return ids[axis] if axis < len(ids) else 0

    def _num_programs(self, axis: int) -> int:
        grid = self.running().grid
        return grid[axis] if axis < len(grid) else 1

    @staticmethod
    def _arange(start: int, end: int) -> Array:
        count = end - start
        if count <= 0 or count & (count - 1):
            raise Fault(f"tl.arange of {count} elements, not a power of two")
        return np.arange(start, end, dtype=np.int64)

    def _cdiv(self, a: Any, b: Any) -> Any:
        return self._divided("//", a + b - 1, b)

    @staticmethod
    def _range(start: Any, end: Any = None, step: Any = 1, num_stages: Any = None, **options: Any) -> range:
        if options:
            raise Fault(f"tl.range with {', '.join(options)}")
        return range(start) if end is None else range(start, end, step)

    # --------------------------------------------------------------------------------------------------- tiles

    def _zeros(self, shape: Any, dtype: DTypeName) -> Any:
        return self._full(shape, 0, dtype)

    def _full(self, shape: Any, value: Any, dtype: DTypeName) -> Any:
        filled = self.cast(value, dtype)
        if isinstance(filled, np.ndarray):
            raise Fault("tl.full of a tile")
        made = np.full(tuple(shape), filled, dtype=object if dtype.is_float else np.int64)
        return plain(made)

    def cast(self, value: Any, dtype: DTypeName) -> Any:
        """A conversion: between floating-point types, between integer types, and to real numbers: 1 for true."""
        if is_condition(value):
            if not dtype.is_float:
                raise Fault("a conversion of truth values to integers")
            return self.real(value.astype(np.int64) if isinstance(value, np.ndarray) else int(value))
        if dtype.is_float:
            return self.real(value)
        if dtype.name not in {"int32", "int64"} or not is_integer(value):
            raise Fault(f"a conversion to {dtype.name}")
        return value

    @staticmethod
    def _trans(tile: Any) -> Any:
        if tile.ndim != 2:
            raise Fault("tl.trans of something that is no matrix")
        return tile.T

    def _dot(self, a: Any, b: Any, acc: Any = None, *, input_precision: str = "", out_dtype: Any = None) -> Any:
        if a.shape[-1] != b.shape[-2] or a.ndim != b.ndim:
            raise Fault(f"tl.dot of shapes {a.shape} and {b.shape}")
        product = np.matmul(self.real(a), self.real(b))
        if acc is not None and acc.shape != product.shape:
            raise Fault(f"tl.dot of shape {product.shape} with an accumulator of shape {acc.shape}")
        return product if acc is None else product + acc

    def _sum(self, tile: Any, axis: int | None = None, keep_dims: bool = False) -> Any:
        return plain(np.add.reduce(tile, axis=axis, keepdims=keep_dims))

    def _max(self, tile: Any, axis: int | None = None, keep_dims: bool = False) -> Any:
        return self._extreme(tile, axis, keep_dims, self._maximum, np.maximum)

    def _min(self, tile: Any, axis: int | None = None, keep_dims: bool = False) -> Any:
        return self._extreme(tile, axis, keep_dims, self._minimum, np.minimum)

    @staticmethod
    def _extreme(tile: Any, axis: int | None, keep_dims: bool, of_reals: np.ufunc, of_integers: np.ufunc) -> Any:
        function: Any = of_integers if is_integer(tile) else of_reals
        if axis is None and not keep_dims:
            return plain(function.reduce(tile.reshape(-1)))
        return plain(function.reduce(tile, axis=axis, keepdims=keep_dims))

    def _larger(self, a: Any, b: Any) -> Any:
        if is_integer(a) and is_integer(b):
            return plain(np.maximum(a, b))
        return plain(self._maximum(self.real(a), self.real(b)))

    def _smaller(self, a: Any, b: Any) -> Any:
        if is_integer(a) and is_integer(b):
            return plain(np.minimum(a, b))
        return plain(self._minimum(self.real(a), self.real(b)))

    def _where(self, condition: Any, then: Any, otherwise: Any) -> Any:
        if not (is_integer(then) and is_integer(otherwise)):
            then, otherwise = self.real(then), self.real(otherwise)
        if is_condition(condition):
            return plain(np.where(condition, then, otherwise))
        return plain(np.frompyfunc(self._chosen, 3, 1)(condition, then, otherwise))

    def _chosen(self, condition: Any, then: Any, otherwise: Any) -> Any:
        if not isinstance(condition, bool):
            return self.numbers.undefined
        return then if condition else otherwise

    def _unary(self, function: np.ufunc) -> Callable[[Any], Any]:
        def applied(value: Any) -> Any:
            if is_integer(value):
                raise Fault("a function of real numbers on integers")
            return plain(function(value))

        return applied

    # -------------------------------------------------------------------------------------------------- memory

    def _load(self, pointer: Any, mask: Any = None, other: Any = None, **options: Any) -> Any:
        _only(options, "cache_modifier", "eviction_policy")
        memory, at, lanes = _lanes(pointer, mask)
        found = memory.read(at[lanes], self.running())
        if memory.is_float:
            rest = self.numbers.undefined if other is None else self.real(other)
            out: Array = np.empty(at.shape, dtype=object)
            out[...] = rest
        else:
            if other is None and not lanes.all():
                raise Fault(f"loads integers of {memory.name} under a mask and does not say what the others are")
            out = np.full(at.shape, other if other is not None else 0, dtype=_integer_type(memory))
        out[lanes] = found
        return plain(out)

    def _store(self, pointer: Any, value: Any, mask: Any = None, **options: Any) -> None:
        _only(options, "cache_modifier", "eviction_policy")
        memory, at, lanes = _lanes(pointer, mask)
        stored = self.real(value) if memory.is_float else value
        if not memory.is_float and not is_integer(value):
            raise Fault(f"stores real numbers into {memory.name}, which holds {memory.dtype}")
        spread = np.broadcast_to(np.asarray(stored, dtype=object), at.shape)[lanes]
        memory.write(at[lanes], spread, self.running())


_INTEGER_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


def _integer_type(memory: Memory) -> type:
    return np.bool_ if memory.dtype == "bool" else np.int64


def _only(options: Mapping[str, Any], *allowed: str) -> None:
    unknown = [name for name in options if name not in allowed]
    if unknown:
        raise Fault(f"the argument {unknown[0]} has no meaning here")


def _lanes(pointer: object, mask: Any) -> tuple[Memory, Array, Array]:
    """The tensor, every lane's storage index, and which lanes take part."""
    if not isinstance(pointer, Pointer):
        raise Fault("an access through something that is no address")
    if mask is not None and not is_condition(mask):
        raise Fault("a mask that is undefined or no truth value")
    at = np.asarray(pointer.offset, dtype=np.int64)
    if mask is not None and np.broadcast_shapes(at.shape, np.shape(mask)) != at.shape:
        raise Fault(f"a mask of shape {np.shape(mask)} for addresses of shape {at.shape}")
    return pointer.memory, at, np.broadcast_to(True if mask is None else mask, at.shape)


def _mask_if_defined(found: Any) -> Any:
    """The outcome of comparisons as a mask, unless one of them is undefined."""
    if not isinstance(found, np.ndarray):
        return found
    defined = all(isinstance(item, bool) for item in found.flat)
    return found.astype(np.bool_) if defined else found
