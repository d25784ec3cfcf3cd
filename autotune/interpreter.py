"""Triton's interpreter, repaired, and strict enough to be a checker.

Triton's own interpreter (3.6 to 3.9) multiplies the bit patterns of bfloat16 numbers, truncates where it casts
to bfloat16, fails on run-time loop bounds with recent NumPy, and cannot live in a process that also compiles.
Here Triton is patched for the length of a ``with`` block, then restored:

    with interpreted():
        y = module.launch(x, w, config=config)      # CPU tensors; every kernel[grid](...) is interpreted

Strictly interpreted, a kernel also answers for what a GPU leaves undefined or hides; see ``interpreted``. What
no sequential interpreter can see: barriers, and the order of memory operations between running programs.
"""

from __future__ import annotations

import ast
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autotune.module import Grid, JitKernel, Patches, bind_launch, launch_grid, patching
from sgraph.errors import KernelCheckFailed

if TYPE_CHECKING:
    import torch

Handle = Any
"""Triton's ``TensorHandle``: a NumPy array ``data`` (bfloat16 as uint16 bits) and a Triton type ``dtype``."""

TAG_SHIFT = np.uint64(48)
"""While memory is checked, the top 16 bits of a pointer say which argument it came from."""
ADDRESS = np.uint64((1 << 48) - 1)
"""The bits of a pointer that are its address; user space has 47."""


@contextmanager
def interpreted(*, strict: bool = True, round_tf32: bool = False) -> Generator[None]:
    """Run every kernel launched inside the block by this thread, on CPU tensors, in the repaired interpreter.

    Launch options (warps, stages, ...) have no meaning here: known ones are ignored, unknown ones refused.
    Arithmetic is IEEE with bfloat16 rounded to nearest even; float32 dots are exact products summed in float32
    whatever their ``input_precision``, unless ``round_tf32`` drops the operand bits that tensor cores drop. A block
    of several elements as a condition is refused (KernelCheckFailed).

    With ``strict``, KernelCheckFailed is raised where a program
    - touches memory outside the argument that its pointer was computed from, gaps of a strided view included;
    - stores to an address that another program of the launch stored to, or reads one that another program
      stored to without having done an atomic operation first (atomic updates themselves are free);
    - stores different values from two lanes to one address;
    - sums a bfloat16 block (it would accumulate in bfloat16);
    and undefined values are made visible: masked-out lanes without ``other`` and what ``torch.empty`` allocates
    inside the block read NaN (integers: their largest value), which maxima and minima pass on.

    One thread at a time: others wait at the ``with``, a nested use in the same thread raises RuntimeError.
    Other threads must not compile kernels meanwhile. Compiling before or after the block is not affected.

    Raises:
        KernelCheckFailed: as above, or any error inside a kernel, with the program that raised it.
        SettingsError: ``TRITON_INTERPRET`` is set.
    """
    with patching("interpreted()") as patches:
        import triton.language as tl
        from triton.runtime import interpreter
        from triton.runtime.jit import JITFunction

        scope: Any = interpreter._patch_lang(_probe(tl))  # pyright: ignore[reportPrivateUsage]
        try:
            memory = _Memory() if strict else None
            _repair_loop_bounds(patches, tl)
            _repair_casts(patches, interpreter)
            _repair_arithmetic(patches, interpreter, round_tf32=round_tf32)
            _repair_reductions(patches, interpreter, strict=strict)
            if memory is not None:
                _propagate_nan(patches, interpreter)
                _check_memory(patches, interpreter, memory)
                _poison_allocations(patches)
            _divert_launches(patches, JITFunction, memory)
            with np.errstate(all="ignore"):
                yield
        finally:
            patches.restore()  # before the scope: they were put on top of it
            scope.restore()


def _probe(tl: Any) -> Callable[..., Any]:
    """A function whose globals show Triton which of its modules to patch."""
    scope: dict[str, Any] = {"tl": tl, "core": tl.core}
    exec("def probe(): pass", scope)
    return scope["probe"]


# ------------------------------------------------------------------------------------------------- launches


def _divert_launches(patches: Patches, jit_function: type, memory: _Memory | None) -> None:
    """Send launches of this thread, and calls of one kernel function by another, to their Python."""
    owner = threading.get_ident()
    launch_on_device: Callable[..., Any] = jit_function.__dict__["run"]

    def run(kernel: JitKernel, *args: object, grid: object, warmup: bool, **keywords: object) -> object:
        if threading.get_ident() != owner:
            return launch_on_device(kernel, *args, grid=grid, warmup=warmup, **keywords)
        if not warmup:
            _run_grid(kernel, args, keywords, grid, memory)
        return None

    def call(kernel: JitKernel, *args: object, **keywords: object) -> object:
        return _as_python(kernel)(*args, **keywords)

    patches.set(jit_function, "run", run)
    patches.set(jit_function, "__call__", call)


def _run_grid(
    kernel: JitKernel, args: Sequence[object], keywords: Mapping[str, object], grid: object, memory: _Memory | None
) -> None:
    """Run one launch, program after program."""
    from triton.runtime.interpreter import interpreter_builder

    builder: Any = interpreter_builder
    name = kernel.fn.__name__
    bound, _ = bind_launch(kernel, args, keywords)
    sizes = launch_grid(grid, bound)
    constants = {p.name for p in kernel.params if p.is_constexpr}
    if memory is not None:
        memory.open({k: v for k, v in bound.items() if k not in constants})
    values = {k: v if k in constants else _to_device(name, k, v, memory) for k, v in bound.items()}
    function = _as_python(kernel)
    builder.set_grid_dim(*sizes)
    for number, program in enumerate(_programs(sizes), start=1):
        builder.set_grid_idx(*program)
        if memory is not None:
            memory.enter(number)
        try:
            function(**values)
        except Exception as error:
            raise _located(error, kernel, program) from error


def _programs(sizes: Grid) -> Iterator[Grid]:
    for z in range(sizes[2]):
        for y in range(sizes[1]):
            for x in range(sizes[0]):
                yield x, y, z


def _located(error: Exception, kernel: JitKernel, program: Grid) -> KernelCheckFailed:
    """An error in a kernel, with the program and the line of the source it comes from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == kernel.fn.__code__.co_filename]
    line = f", line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
    where = f"kernel {kernel.fn.__name__}, program {program}{line}"
    if isinstance(error, KernelCheckFailed):
        return KernelCheckFailed(error.seen, where=where, do=error.do)
    return KernelCheckFailed(f"{type(error).__name__} while interpreting: {error}", where=where)


def _to_device(kernel: str, name: str, value: Any, memory: _Memory | None) -> Any:
    """What a kernel sees of an argument: a pointer, a scalar tensor, a descriptor; others as they are."""
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.tools.tensor_descriptor import TensorDescriptor

    base = value.base if isinstance(value, TensorDescriptor) else value
    if hasattr(base, "data_ptr") and base.device.type != "cpu":
        raise KernelCheckFailed(
            f"argument {name} is on device {base.device}", where=f"kernel {kernel}", do="give CPU tensors"
        )
    if isinstance(value, float):  # a run-time float is a float32 on the device, not Python's float64
        return tl.tensor(interpreter.TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)
    device_value: Any = interpreter._implicit_cvt(value)  # pyright: ignore[reportPrivateUsage]
    if memory is not None and hasattr(base, "data_ptr"):
        handle: Handle = device_value.handle
        if isinstance(value, TensorDescriptor):
            handle = handle.base
        handle.data = memory.tagged(name, handle.data)
    return device_value


_rewritten: dict[Callable[..., Any], Callable[..., Any]] = {}


def _as_python(kernel: JitKernel) -> Callable[..., Any]:
    """The kernel as a Python function in which assigned numbers become tensors, as in compiled kernels.

    It gets a copy of the module's globals: Triton's own rewriter would leave its names in the module for good.
    """
    if kernel.fn not in _rewritten:
        from triton.runtime import interpreter

        interpreter_names: dict[str, Any] = {**vars(interpreter), _CONDITION: _condition, _STEPS: _steps}
        tree: ast.AST = interpreter.ASTTransformer().visit(_AsCompiled().visit(ast.parse(kernel.src)))
        ast.fix_missing_locations(tree)
        before = next(i for i, line in enumerate(kernel.raw_src) if line.lstrip().startswith("def "))
        ast.increment_lineno(tree, kernel.starting_line_number + before - 1)
        scope = {**interpreter_names, **kernel.fn.__globals__}
        exec(compile(tree, kernel.fn.__code__.co_filename, "exec"), scope)  # pyright: ignore[reportArgumentType]
        _rewritten[kernel.fn] = scope[kernel.fn.__name__]
    return _rewritten[kernel.fn]


_CONDITION = "_prism_condition"
_STEPS = "_prism_steps"


class _AsCompiled(ast.NodeTransformer):
    """Make conditions and loop variables of a kernel what they are when it is compiled.

    Triton's interpreter takes a block for true, whatever it holds, and then ``a and b`` for ``b``; conditions go
    through ``_condition``. (Patching the truth of a block would hit Triton's own code, which asks ``if other``.)
    Its loop variables are Python integers, of any size and without ``.to``; ``_steps`` makes them tensors.
    """

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        match node.iter:
            case ast.Call(func=ast.Name(id="range") | ast.Attribute(attr="range")):
                node.iter = _call(_STEPS, node.iter)
            case _:  # static_range is unrolled: its variable is a constant
                pass
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        return self._tested(node)

    def visit_While(self, node: ast.While) -> ast.AST:
        return self._tested(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        return self._tested(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        node.values = [_call(_CONDITION, value) for value in node.values]
        return node

    def _tested(self, node: ast.If | ast.While | ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.test = _call(_CONDITION, node.test)
        return node


def _call(function: str, value: ast.expr) -> ast.expr:
    return ast.Call(func=ast.Name(id=function, ctx=ast.Load()), args=[value], keywords=[])


def _steps(numbers: range) -> Iterator[Any]:
    """The values of a loop variable, as scalar tensors."""
    from triton.runtime.interpreter import interpreter_semantic

    semantic: Any = interpreter_semantic
    return (semantic.to_tensor(number) for number in numbers)


def _condition(value: Any) -> Any:
    """The value, unless it is a block of several elements."""
    data: Any = getattr(getattr(value, "handle", None), "data", None)
    if isinstance(data, np.ndarray) and data.size != 1:
        raise KernelCheckFailed(f"a block of shape {list(data.shape)} is used as a condition", do="use tl.where or &")
    return value


# ----------------------------------------------------------------------------------------------- arithmetic


def bf16_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Numbers as bfloat16 bit patterns, rounded to nearest even; NaN stays NaN."""
    exact = np.ascontiguousarray(values, dtype=np.float32)
    bits = exact.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(exact), np.uint16(0x7FC0), rounded).reshape(np.shape(values))


def bf16_values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bit patterns as the float32 numbers they are."""
    wide = np.ascontiguousarray(bits).astype(np.uint32) << 16
    return wide.view(np.float32).reshape(np.shape(bits))


def tf32_values(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What tensor cores read of float32 operands: the 13 low bits of the significand dropped."""
    bits = np.ascontiguousarray(values).view(np.uint32) & np.uint32(0xFFFFE000)
    return bits.view(np.float32).reshape(np.shape(values))


def _is_bf16(handle: Handle) -> bool:
    return handle.dtype.scalar.name == "bf16"


def _wide(handle: Handle) -> Handle:
    """A bfloat16 handle as float32; any other as it is."""
    if not _is_bf16(handle):
        return handle
    import triton.language as tl

    return type(handle)(bf16_values(handle.data), tl.float32)


def _narrow(like: Handle, values: NDArray[Any]) -> Handle:
    """Float32 results as bfloat16; comparisons stay Boolean."""
    import triton.language as tl

    boolean = values.dtype == np.bool_
    return type(like)(values if boolean else bf16_bits(values), tl.int1 if boolean else like.dtype.scalar)


def _repair_loop_bounds(patches: Patches, tl: Any) -> None:
    """Make run-time loop bounds integers: Triton 3.6 asks NumPy, which from 2.4 on refuses arrays of one element."""

    def index(tensor: Any) -> int:
        return int(np.asarray(tensor.handle.data).reshape(-1)[0])

    patches.set(tl.tensor, "__index__", index)


def _repair_casts(patches: Patches, interpreter: Any) -> None:
    builder: Any = interpreter.InterpreterBuilder
    cast, cast_rounded, rounding = builder.cast_impl, builder.create_fp_to_fp, interpreter._ir.ROUNDING_MODE

    def cast_impl(self: Any, source: Handle, target: Any) -> Handle:
        scalar = target.scalar
        if scalar.name == "bf16" and not _is_bf16(source):
            return type(source)(bf16_bits(source.data), scalar)
        if _is_bf16(source) and scalar.name != "bf16":
            return cast(self, _wide(source), target)
        return cast(self, source, target)

    def create_fp_to_fp(self: Any, source: Handle, target: Any, mode: Any) -> Handle:
        wide_enough = min(source.dtype.scalar.primitive_bitwidth, target.scalar.primitive_bitwidth) >= 16
        if wide_enough and mode != rounding.RTZ:  # the stock one loses the carry of a rounding
            return cast_impl(self, source, target)
        return cast_rounded(self, source, target, mode)

    def get_bf16(self: Any, value: float) -> Handle:  # a constant in bfloat16 arithmetic; new in Triton 3.9
        del self
        bits = bf16_bits(np.array([value], np.float32))
        return interpreter.TensorHandle(bits, interpreter.tl.bfloat16)

    patches.set(builder, "get_bf16", get_bf16)
    patches.set(builder, "cast_impl", cast_impl)
    patches.set(builder, "create_fp_to_fp", create_fp_to_fp)


def _repair_arithmetic(patches: Patches, interpreter: Any, *, round_tf32: bool) -> None:
    builder: Any = interpreter.InterpreterBuilder
    binary, unary, dot, fma = builder.binary_op, builder.unary_op, builder.create_dot, builder.create_fma

    def binary_op(self: Any, left: Handle, right: Handle, operation: Callable[..., Any]) -> Handle:
        if _is_bf16(left):
            return _narrow(left, operation(_wide(left).data, _wide(right).data))
        result = binary(self, left, right, operation)
        if result.data.dtype == np.bool_:  # Triton keeps the operands' type, which a broadcast then converts to
            result.dtype = interpreter.tl.int1
        return result

    def unary_op(self: Any, operand: Handle, operation: Callable[..., Any]) -> Handle:
        if not _is_bf16(operand):
            return unary(self, operand, operation)
        return _narrow(operand, operation(_wide(operand).data))

    def create_fma(self: Any, x: Handle, y: Handle, z: Handle) -> Handle:
        if not _is_bf16(z):
            return fma(self, x, y, z)
        return _narrow(z, _wide(x).data.astype(np.float64) * _wide(y).data + _wide(z).data)

    def create_dot(self: Any, a: Handle, b: Handle, d: Handle, precision: Any, *rest: Any) -> Handle:
        a, b = _wide(a), _wide(b)
        if round_tf32 and a.data.dtype == np.float32 and str(precision).rpartition(".")[2].upper() == "TF32":
            a, b = (type(h)(tf32_values(h.data), h.dtype) for h in (a, b))
        return dot(self, a, b, d, precision, *rest)

    patches.set(builder, "binary_op", binary_op)
    patches.set(builder, "unary_op", unary_op)
    patches.set(builder, "create_fma", create_fma)
    patches.set(builder, "create_dot", create_dot)


def _repair_reductions(patches: Patches, interpreter: Any, *, strict: bool) -> None:
    import triton.language as tl

    reduce: Any = interpreter.ReduceOps
    scan: Any = interpreter.ScanOps

    def in_float32(method: Callable[..., Any], what: str) -> Callable[..., Any]:
        def accumulate(self: Any, operand: Any) -> Any:
            if not _is_bf16(operand.handle):
                return method(self, operand)
            if strict:
                raise KernelCheckFailed(
                    f"{what} of a bfloat16 block accumulates in bfloat16", do="cast to float32 after the load"
                )
            results = method(self, tl.tensor(_wide(operand.handle), tl.block_type(tl.float32, operand.shape)))
            return [narrowed(r) for r in results] if isinstance(results, list) else narrowed(results)

        return accumulate

    def narrowed(result: Any) -> Any:
        shape = list(result.shape)
        handle = type(result.handle)(bf16_bits(result.handle.data), tl.bfloat16)
        return tl.tensor(handle, tl.block_type(tl.bfloat16, shape) if shape else tl.bfloat16)

    patches.set(reduce, "sum", in_float32(reduce.sum, "tl.sum"))
    patches.set(scan, "cumsum", in_float32(scan.cumsum, "tl.cumsum"))
    patches.set(scan, "cumprod", in_float32(scan.cumprod, "tl.cumprod"))


def _propagate_nan(patches: Patches, interpreter: Any) -> None:
    """Let maxima and minima pass NaN on: on a device they may drop it, and would hide the poison."""
    builder: Any = interpreter.InterpreterBuilder
    reduce: Any = interpreter.ReduceOps
    min_max = reduce.min_max
    strict: dict[Any, Any] = {np.nanmax: np.max, np.nanmin: np.min, np.nanargmax: np.argmax, np.nanargmin: np.argmin}

    def passing(self: Any, operand: Any, val_reduce_op: Any, idx_reduce_op: Any = None) -> Any:
        value, index = strict.get(val_reduce_op, val_reduce_op), strict.get(idx_reduce_op, idx_reduce_op)
        return min_max(self, operand, value, index)

    def maximum(self: Any, left: Handle, right: Handle) -> Handle:
        return self.binary_op(left, right, np.maximum)

    def minimum(self: Any, left: Handle, right: Handle) -> Handle:
        return self.binary_op(left, right, np.minimum)

    patches.set(reduce, "min_max", passing)
    patches.set(builder, "create_maxnumf", maximum)
    patches.set(builder, "create_minnumf", minimum)


# --------------------------------------------------------------------------------------------------- memory


@dataclass(slots=True)
class _Region:
    """The memory of one argument."""

    name: str
    low: int
    """Address of its first element."""
    size: int
    """Bytes from there to the end of its last element."""
    element: int
    """Bytes of one element."""
    inside: NDArray[np.bool_] | None
    """Which elements between are its own; None for all (a dense tensor)."""
    storage: _Storage


@dataclass(slots=True)
class _Storage:
    """What arguments that share memory have in common: who wrote where."""

    low: int
    high: int
    element: int
    writer: NDArray[np.int32] | None = None
    """Number of the program that stored each element; 0 for none."""


@dataclass(slots=True)
class _Memory:
    """What a memory checker would say of one launch at a time."""

    program: int = 0
    """Number of the running program, from 1."""
    synchronised: bool = False
    """Whether the running program has done an atomic operation: what it reads afterwards may be ordered."""
    regions: list[_Region] = field(default_factory=list["_Region"])

    def open(self, arguments: Mapping[str, Any]) -> None:
        """Start a launch on these arguments."""
        self.regions = []
        storages: dict[int, _Storage] = {}
        for name, value in arguments.items():
            tensor = getattr(value, "base", value) if not hasattr(value, "data_ptr") else value
            if hasattr(tensor, "data_ptr"):
                self.regions.append(_region(name, tensor, storages))

    def enter(self, program: int) -> None:
        """Start a program of the launch."""
        self.program, self.synchronised = program, False

    def tagged(self, name: str, pointer: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The pointer to an argument, marked as such."""
        tag = next(i for i, region in enumerate(self.regions, start=1) if region.name == name)
        return pointer | (np.uint64(tag) << TAG_SHIFT)

    def access(self, pointers: NDArray[np.uint64], mask: NDArray[np.bool_], verb: str) -> NDArray[np.uint64]:
        """Check one access of the running program; the addresses behind the pointers."""
        addresses = pointers & ADDRESS
        shape = np.broadcast_shapes(pointers.shape, mask.shape)
        live = np.broadcast_to(mask, shape)
        tags = np.broadcast_to(pointers >> TAG_SHIFT, shape)[live]
        targets = np.broadcast_to(addresses, shape)[live].astype(np.int64)
        if targets.size:
            if (tags == tags[0]).all():
                self._access_region(int(tags[0]), targets, verb)
            else:
                for tag in np.unique(tags):
                    self._access_region(int(tag), targets[tags == tag], verb)
        return addresses

    def _access_region(self, tag: int, addresses: NDArray[np.int64], verb: str) -> None:
        if not 1 <= tag <= len(self.regions):
            raise _stray(f"{verb} outside every argument")
        region = self.regions[tag - 1]
        offsets = addresses - region.low
        stray = (offsets < 0) | (offsets > region.size - region.element)
        if region.inside is not None and not stray.any():
            stray = ~region.inside[offsets // region.element]
        if stray.any():
            first = int(offsets[stray][0])
            raise _stray(
                f"{verb} outside every argument: {int(stray.sum())} of {stray.size} lanes leave {region.name}, "
                f"the first at element {first // region.element} of {region.size // region.element}"
            )
        self._order(region, addresses, verb)

    def _order(self, region: _Region, addresses: NDArray[np.int64], verb: str) -> None:
        """No address may be stored to by two programs, or read by one after another stored to it."""
        storage = region.storage
        if verb == "atomic" or (storage.writer is None and verb == "load"):
            return
        if storage.writer is None:
            storage.writer = np.zeros((storage.high - storage.low) // storage.element + 1, np.int32)
        slots = (addresses - storage.low) // storage.element
        writers = storage.writer[slots]
        others = (writers != 0) & (writers != self.program)
        if verb == "store":
            if others.any():
                raise _stray(f"two programs store to one address of {region.name}")
            storage.writer[slots] = self.program
        elif others.any() and not self.synchronised:
            raise _stray(f"load from {region.name} of what another program of the same launch stores")


def _stray(seen: str) -> KernelCheckFailed:
    return KernelCheckFailed(seen, do="check the offsets and masks of this access")


def _region(name: str, tensor: torch.Tensor, storages: dict[int, _Storage]) -> _Region:
    import torch

    element, low = tensor.element_size(), tensor.data_ptr()
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    inside: NDArray[np.bool_] | None = None
    if tensor.numel() < extent:
        own = torch.zeros(extent, dtype=torch.bool)
        own.as_strided(tensor.shape, tensor.stride()).fill_(True)
        inside = own.numpy()
    high = low + extent * element
    storage = storages.setdefault(tensor.untyped_storage().data_ptr(), _Storage(low, high, element))
    storage.low, storage.high = min(storage.low, low), max(storage.high, high)
    storage.element = min(storage.element, element)
    return _Region(name, low, extent * element, element, inside, storage)


def _check_memory(patches: Patches, interpreter: Any, memory: _Memory) -> None:
    builder: Any = interpreter.InterpreterBuilder
    handle_type: Any = interpreter.TensorHandle
    load, store = builder.create_masked_load, builder.create_masked_store
    rmw, cas = builder.create_atomic_rmw, builder.create_atomic_cas

    def checked(pointers: Handle, mask: NDArray[np.bool_], verb: str) -> Handle:
        return handle_type(memory.access(pointers.data, mask, verb), pointers.dtype)

    def masked_load(self: Any, pointers: Handle, mask: Handle, other: Handle, *rest: Any, **named: Any) -> Handle:
        live = np.asarray(mask.data)
        if other is None and not live.all():
            scalar = pointers.get_element_ty()
            other = handle_type(_poison(scalar, pointers.data.shape, interpreter), scalar)
        return load(self, checked(pointers, live, "load"), mask, other, *rest, **named)

    def masked_store(self: Any, pointers: Handle, value: Handle, mask: Handle, *rest: Any) -> Any:
        live = np.asarray(mask.data)
        real = checked(pointers, live, "store")
        done = store(self, real, value, mask, *rest)
        stored = np.ascontiguousarray(value.data[live])
        back = interpreter._interpreter.load(real.data, live, np.zeros_like(value.data), value.data.dtype)
        if stored.tobytes() != np.ascontiguousarray(back[live]).tobytes():
            raise _stray("two lanes store different values to one address")
        return done

    def atomic_rmw(self: Any, operation: Any, pointer: Handle, value: Handle, mask: Handle, *rest: Any) -> Handle:
        memory.synchronised = True
        return rmw(self, operation, checked(pointer, np.asarray(mask.data), "atomic"), value, mask, *rest)

    def atomic_cas(self: Any, pointer: Handle, *rest: Any) -> Handle:
        memory.synchronised = True
        return cas(self, checked(pointer, np.ones(pointer.data.shape, np.bool_), "atomic"), *rest)

    patches.set(builder, "create_masked_load", masked_load)
    patches.set(builder, "create_masked_store", masked_store)
    patches.set(builder, "create_atomic_rmw", atomic_rmw)
    patches.set(builder, "create_atomic_cas", atomic_cas)


def _poison(scalar: Any, shape: tuple[int, ...], interpreter: Any) -> NDArray[Any]:
    """What masked-out lanes read: NaN, or the largest integer."""
    dtype: np.dtype[Any] = interpreter._get_np_dtype(scalar)
    if scalar.name == "bf16":
        return np.full(shape, 0x7FC1, dtype)
    if dtype.kind == "f":
        return np.full(shape, np.nan, dtype)
    return np.full(shape, True if dtype.kind == "b" else np.iinfo(dtype).max, dtype)


def _poison_allocations(patches: Patches) -> None:
    """Fill what launchers allocate without a value, so that memory no kernel wrote is noticed."""
    import torch

    def filled(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def allocate_filled(*args: Any, **keywords: Any) -> torch.Tensor:
            tensor = allocate(*args, **keywords)
            if tensor.device.type == "cpu":
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))
                elif tensor.dtype == torch.bool or tensor.is_complex():
                    tensor.fill_(1)
                else:
                    tensor.fill_(torch.iinfo(tensor.dtype).max)
            return tensor

        return allocate_filled

    patches.set(torch, "empty", filled(torch.empty))
    patches.set(torch, "empty_like", filled(torch.empty_like))
    patches.set(torch.Tensor, "new_empty", filled(torch.Tensor.new_empty))
