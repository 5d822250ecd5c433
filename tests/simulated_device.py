"""A device for tests on machines without a GPU: its tensors report `simulated`, and their numbers are on the CPU.

Each operation runs on the CPU and gives the result that it has there. As on CUDA, an operation raises if its tensors
are on two devices, unless the one on the CPU is a 0-d tensor or an index; so does NumPy if it is given a tensor of the
device. Random numbers come from the device's own generator, which `torch.manual_seed` seeds too.

Differences from CUDA: `torch.Generator(device="simulated")`, sparse tensors and assignment to `.data` of a tensor on
the CPU are not supported, and autocast changes no dtype. There is one device, `simulated:0`. It must be registered
before the first backward pass of the process, in which autograd starts a thread for each device.
"""

import contextlib

import torch
from torch import Tensor
from torch.storage import TypedStorage, UntypedStorage
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "simulated"
aten = torch.ops.aten


class DeviceModule:
    """`torch.simulated`, which torch looks up as it does `torch.cuda`."""

    def __init__(self):
        self.manual_seed_all(0)

    def is_available(self):
        return True

    is_initialized = is_available

    def _is_in_bad_fork(self):
        return False

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def manual_seed_all(self, seed):
        # Not the numbers that the CPU's generator draws from the same seed.
        self.state = torch.Generator().manual_seed(int(seed) ^ 0x5EED).get_state()

    manual_seed = manual_seed_all

    def get_rng_state(self, device=None):
        return self.state.clone()

    def set_rng_state(self, state, device=None):
        self.state = state.clone()


@contextlib.contextmanager
def own_generator():
    """Let operations on the CPU draw from the generator of the device."""
    module, state_of_cpu = torch.get_device_module(NAME), torch.default_generator.get_state()
    torch.default_generator.set_state(module.state)
    try:
        yield
    finally:
        module.state = torch.default_generator.get_state()
        torch.default_generator.set_state(state_of_cpu)


_setup_privateuseone_for_python_backend(NAME, backend_module=DeviceModule())
DEVICE = torch.device(NAME, 0)

# Operations that accept indices on the CPU. The indices are the second argument.
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
    aten._unsafe_index_put.default,
}
# Operations that accept a 0-d tensor on the CPU besides the pointwise ones.
WITH_NUMBER = INDEXED | {
    aten.fill.Tensor,
    aten.fill_.Tensor,
    aten.index_fill.int_Tensor,
    aten.index_fill_.int_Tensor,
    aten.masked_fill.Tensor,
    aten.masked_fill_.Tensor,
}
BETWEEN_DEVICES = {aten.copy.default, aten.copy_.default, aten._to_copy.default}


class SimulatedTensor(Tensor):
    """A tensor on the simulated device; `on_cpu` contains its numbers."""

    on_cpu: Tensor
    __module__ = "torch"  # a part of torch, as tensors on CUDA are: checkpoints do not compare its code
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, on_cpu):
        made = Tensor._make_wrapper_subclass(
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=DEVICE,
        )
        made.on_cpu = on_cpu
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents=None):
        return f"{repr(self.on_cpu).removesuffix(')')}, device='{DEVICE}')"

    @property
    def data(self):
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, other):
        with torch._C._DisableTorchDispatch():
            Tensor.data.__set__(self, other)
        self.on_cpu = other.on_cpu

    def numpy(self, *, force=False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to the CPU first."
        )

    def __array__(self, dtype=None, copy=None):
        return self.numpy()

    def tolist(self):
        return self.detach().cpu().tolist()

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            raise RuntimeError("Only leaf tensors support deepcopy.")
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            copied.__dict__ |= {name: value for name, value in self.__dict__.items() if name != "on_cpu"}
            if self.grad is not None:
                copied.grad = self.grad.detach().clone()
            memo[id(self)] = copied
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        if getattr(self, "_is_param", False):
            return torch._utils._rebuild_parameter, (self.detach(), self.requires_grad, {})
        storage = SimulatedStorage(self.on_cpu.untyped_storage())
        typed = TypedStorage(wrap_storage=storage, dtype=self.dtype, _internal=True)
        place = self.on_cpu.storage_offset(), tuple(self.shape), self.on_cpu.stride()
        return torch._utils._rebuild_tensor_v2, (typed, *place, self.requires_grad, {})

    def set_(self, source, *place):
        """Return a tensor of a storage, as `torch.load` does."""
        return SimulatedTensor(torch.empty(0, dtype=self.dtype).set_(source.on_cpu, *place))


torch.SimulatedTensor = SimulatedTensor


class SimulatedStorage(UntypedStorage):
    """Bytes on the simulated device, for `torch.save` and `torch.load`; `on_cpu` contains them."""

    def __new__(cls, on_cpu):
        made = UntypedStorage.__new__(cls, 0)
        made.on_cpu = on_cpu
        return made

    def __init__(self, on_cpu):
        super().__init__()

    device = property(lambda self: DEVICE)
    _cdata = property(lambda self: self.on_cpu._cdata)

    def cpu(self):
        return self.on_cpu

    def nbytes(self):
        return self.on_cpu.nbytes()

    size = __len__ = nbytes

    def data_ptr(self):
        return self.on_cpu.data_ptr()

    def _write_file(self, *arguments):
        self.on_cpu._write_file(*arguments)

    def _set_from_file(self, *arguments):
        self.on_cpu._set_from_file(*arguments)


def run(func, args, kwargs):
    """Run an operation on the CPU; its result is on the device on which CUDA would return it."""
    tensors = tensors_in((*args, *kwargs.values()))
    simulated = [part for part in tensors if isinstance(part, SimulatedTensor)]
    if len(simulated) < len(tensors) and func not in BETWEEN_DEVICES:
        check_devices(func, args, kwargs)
    device = kwargs.get("device")
    if func is aten.copy_.default:
        on_device = isinstance(args[0], SimulatedTensor)
    else:
        on_device = bool(simulated) if device is None else torch.device(device).type == NAME
    if on_device and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    kwargs = {name: converted(value, to_cpu) for name, value in kwargs.items() if name != "pin_memory"}
    if on_device and device is not None:
        kwargs["device"] = torch.device("cpu")
    draws = on_device and torch.Tag.nondeterministic_seeded in func.tags
    with own_generator() if draws else contextlib.nullcontext():
        result = func(*converted(args, to_cpu), **kwargs)
    for part in simulated:
        follow_shape(part)
    if not on_device:
        return result
    given = {
        id(part.on_cpu): part for part in simulated
    }  # an operation in place or with `out=` returns what it is given
    return converted(result, lambda value: given[id(value)] if id(value) in given else SimulatedTensor(value))


def tensors_in(parts):
    """List the tensors among arguments, in lists too."""
    found = []
    for part in parts:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, list | tuple):
            found += tensors_in(part)
    return found


def converted(part, convert):
    """Convert a tensor, or each tensor of a list."""
    if isinstance(part, Tensor):
        return convert(part)
    if isinstance(part, list | tuple):
        return type(part)([converted(inner, convert) for inner in part])
    return part


def to_cpu(tensor):
    return tensor.on_cpu if isinstance(tensor, SimulatedTensor) else tensor


def check_devices(func, args, kwargs):
    """Raise if CUDA would for an operation on tensors of two devices."""
    if func in INDEXED:
        rows, indices, *others = args
        if not isinstance(rows, SimulatedTensor) and any(isinstance(part, SimulatedTensor) for part in indices):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        args = [rows, *others]
    tensors = tensors_in((*args, *kwargs.values()))
    if func in WITH_NUMBER or (torch.Tag.pointwise in func.tags and func is not aten.equal.default):
        written = kwargs.get("out", args[0]) if func._schema.is_mutable else None
        tensors = [part for part in tensors if part is written or part.ndim > 0 or isinstance(part, SimulatedTensor)]
    if len({part.device for part in tensors}) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu! "
            f"(when running {func})"
        )


def follow_shape(tensor):
    """Give a tensor the shape of its numbers, which an operation in place or with `out=` may have changed."""
    if tensor.shape != tensor.on_cpu.shape or tensor.stride() != tensor.on_cpu.stride():
        tensor.data = SimulatedTensor(tensor.on_cpu)


# What torch calls where no argument is a `SimulatedTensor`, or in `torch.tensor`, which turns `__torch_dispatch__` off.
_operations = torch.library.Library("aten", "IMPL")
for _func in (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.copy_.default,
    aten._local_scalar_dense.default,
    aten.tril_indices.default,
    aten.triu_indices.default,
):
    _operations.impl(_func, lambda *args, _func=_func, **kwargs: run(_func, args, kwargs), "PrivateUse1")
_fallbacks = torch.library.Library("_", "IMPL")
_fallbacks.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
# Before torch's own functions for the device (priority 23), which would allocate memory on it.
torch.serialization.register_package(
    5,
    lambda storage: str(DEVICE) if isinstance(storage, SimulatedStorage) else None,
    lambda storage, location: SimulatedStorage(storage) if location.split(":")[0] == NAME else None,
)
