"""What is freed is given back to the system: the allocator of a bridge that runs."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from oneweb_bridge.cli.memory import tune_allocator
if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit(3)
if "tuned" in sys.argv:
    tune_allocator()
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) >> 10
kept, before = [], resident()
def read_pages():
    for _ in range(4):
        pages = [(b"x" * (2 << 20), b"y" * 600) for _ in range(20)]
        kept.extend(small for _, small in pages)
def work():
    threads = [threading.Thread(target=read_pages) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
work()
print(resident() - before)
"""


# What is told to the allocator are options of glibc alone; macOS has another one.
@pytest.mark.skipif(sys.platform != "linux", reason="glibc is the C library of Linux")
def test_large_blocks_are_given_back() -> None:
    """Pages of a listing that were read in threads leave nothing behind; without the tuning most of them stay."""
    left = {}
    for word in ("tuned", "as it is"):
        ended = subprocess.run([sys.executable, "-c", PROGRAM, word], capture_output=True, timeout=60, check=False)
        if ended.returncode == 3:
            # Alpine's musl has no `mallopt`, and there the bridge tells it nothing.
            pytest.skip("the C library is not glibc")
        left[word] = int(ended.stdout)
    assert left["tuned"] < 8
    # The control. Some systems give it all back by themselves.
    assert left["as it is"] >= left["tuned"]
