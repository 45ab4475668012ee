"""Processors, and whether bf16 gives right products on them, and fast ones."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator

from vjepa2cli.diagnosis.check import Check, one_line
from vjepa2cli.diagnosis.storage import gigabytes

_MATMUL_SIZE = 768
_REPEATS = 6
_WORST_ERROR = 0.02


def check_devices() -> Iterator[Check]:
    """The CPU, the CUDA device, and bf16 on each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Check("cpu", True, f"{cores} cores, {gigabytes(memory)} of memory, {platform.machine()}")
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("cuda", None, f"torch does not import ({one_line(error)})", "mend torch first")
        return
    yield check_cuda()
    yield check_bf16("cpu")
    if torch.cuda.is_available():
        yield check_bf16("cuda")


def check_cuda() -> Check:
    """Names and memory of the CUDA devices; red where the machine has one that torch cannot use."""
    import torch

    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Check("cuda", True, "; ".join(f"{device.name}, {gigabytes(device.total_memory)}" for device in found))
    if shutil.which("nvidia-smi") is None:
        return Check("cuda", None, "no NVIDIA device: everything runs on the CPU")
    if torch.version.cuda is None:
        return Check(
            "cuda",
            False,
            "nvidia-smi is here, but torch is built for the CPU only",
            "install a CUDA build of torch: pytorch.org/get-started",
        )
    reason = f"nvidia-smi is here, but torch, built for CUDA {torch.version.cuda}, finds no device"
    return Check("cuda", False, reason, "update the NVIDIA driver, or check CUDA_VISIBLE_DEVICES")


def check_bf16(device: str) -> Check:
    """Multiply the same matrices in bf16 and in fp32: the products must agree, and both speeds are told."""
    import torch

    matrix = torch.randn(_MATMUL_SIZE, _MATMUL_SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    rough = matrix.to(torch.bfloat16)
    exact = matrix @ matrix
    error = float(((rough @ rough).float() - exact).norm() / exact.norm())
    wait = torch.cuda.synchronize if device == "cuda" else None
    half, full = _speed(lambda: rough @ rough, wait), _speed(lambda: matrix @ matrix, wait)
    detail = f"matrix products at {half:.0f} GFLOP/s, in fp32 at {full:.0f}; they agree to {error:.1%}"
    if not error < _WORST_ERROR:
        return Check(f"bf16 on {device}", False, detail, "its products are wrong here: train with --set precision=fp32")
    if half < full:
        return Check(f"bf16 on {device}", None, detail, "it works but is the slower one here: --set precision=fp32 trains faster")
    return Check(f"bf16 on {device}", True, detail)


def _speed(multiply: Callable[[], object], wait: Callable[[], object] | None) -> float:
    """GFLOP/s of the fastest of a few products."""
    fastest = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter()
        multiply()
        if wait is not None:
            wait()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * _MATMUL_SIZE**3 / fastest / 1e9
