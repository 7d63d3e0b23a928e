"""The Containerfile: built where a container daemon runs, else linted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def builder() -> str | None:
    """A program that can build images here, with its daemon running where it needs one."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def test_the_containerfile_builds_or_is_well_formed() -> None:
    if (program := builder()) is not None:
        command = [program, "build", "--build-arg", "EXTRA=cpu", "-f", "Containerfile", "."]
        built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
        assert built.returncode == 0, built.stderr[-3000:]
        return
    hadolint = Path(sys.executable).with_name("hadolint")
    linted = subprocess.run([hadolint, "Containerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_everything_that_the_image_copies_is_there() -> None:
    for line in (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY "):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
