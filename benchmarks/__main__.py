"""`python -m benchmarks`, as `benchmarks.command` tells; `gpu` begins here, as it runs where little else is installed."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run what the command line asks for."""
    if sys.argv[1:2] == ["gpu"]:
        from benchmarks.kernels import gpu

        return gpu.main(sys.argv[2:])
    from benchmarks import command

    return command.main()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers that were started have sessions of their own
    sys.exit(main())
