"""What a process arranges for itself with the kernel: no core dumps, enough files, not to outlive its maker."""

import ctypes
import os
import resource
import signal
import sys

# prctl(2), from linux/prctl.h. The standard library has no prctl.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


MOST_DESCRIPTORS = 65536
"""More open files than any setting of ours has use for; a limit of millions makes some programs slow."""


def raise_descriptor_limit() -> int:
    """Let this process and its children open as many files as they may; returns how many that are.

    The soft limit is mostly 1024, for programs that use select(2). Nothing here does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def forbid_core_dumps() -> None:
    """Let no memory of this process or its children reach a disk when one dies.

    The limit alone is not enough: core(5) does not apply it where core_pattern is a pipe, as systemd-coredump's is.
    Not dumpable also means that no other process of the same user can attach a debugger and read the memory.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before the kernel was told.
    if os.getppid() != parent:
        os._exit(1)


def unpacking_parent() -> int | None:
    """The process that unpacked this program, where it is frozen into one file and so runs as a child of itself."""
    if not getattr(sys, "frozen", False):
        return None
    parent = os.getppid()
    try:
        same = os.path.samefile(f"/proc/{parent}/exe", "/proc/self/exe")
    except OSError:
        return None
    return parent if same else None


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")
