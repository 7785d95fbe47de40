"""Time to import, and to the first line of help: the fastest of several fresh processes.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time


def fastest(arguments: list[str], repeats: int = 7) -> float:
    """Seconds of the fastest of several runs of the interpreter."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return min(times)


if __name__ == "__main__":
    torch_alone = fastest(["-c", "import torch"])
    both = fastest(["-c", "import torch, comodulation"])
    function = fastest(["-c", "import torch; from comodulation import decoder_gains, ComodulatedHead"])
    print(f"import torch                          {torch_alone:.2f} s")
    print(f"import comodulation after it          {both - torch_alone:+.3f} s")
    print(f"... and decoder_gains, ComodulatedHead {function - torch_alone:+.3f} s")
    print(f"comodulate --help                     {fastest(['-m', 'comodulation', '--help']):.2f} s")
