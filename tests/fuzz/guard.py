"""Tensors between guard pages: a read or write outside the tensor ends the process."""

import ctypes
import mmap

import torch

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value
PAGE = mmap.PAGESIZE


class Guards:
    """``with Guards() as guards``: tensors from ``guards.place`` are valid inside the block."""

    def __init__(self):
        self._mapped = []

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        for address, length in self._mapped:
            _LIBC.munmap(address, length)

    def place(self, tensor):
        """A contiguous copy that ends right before an inaccessible page; the page in front is
        inaccessible too. Anything but a contiguous CPU tensor is returned unchanged."""
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
            return tensor
        if not tensor.is_contiguous():
            return tensor
        size = tensor.numel() * tensor.element_size()
        pages = -(-size // PAGE)
        length = (pages + 2) * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        address = _LIBC.mmap(None, length, 0, flags, -1, 0)
        assert address != _FAILED, "mmap"
        self._mapped.append((address, length))
        if not size:
            return tensor
        inside = mmap.PROT_READ | mmap.PROT_WRITE
        assert _LIBC.mprotect(address + PAGE, pages * PAGE, inside) == 0, "mprotect"
        first = address + (pages + 1) * PAGE - size
        memory = (ctypes.c_char * size).from_address(first)
        copy = torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape)
        return copy.copy_(tensor)
