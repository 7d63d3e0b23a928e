"""A real PostgreSQL for tests, on a socket in a folder of its own, as a user that is not root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
MISSING = "no PostgreSQL: initdb and pg_ctl are neither on PATH nor below /usr/lib/postgresql"


def program(name: str) -> str | None:
    """The path of one of PostgreSQL's programs."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, FOLDERS)))


def unprivileged() -> str | None:
    """The user to start it as: it refuses root."""
    if os.getuid() != 0:
        return None
    users = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


@contextmanager
def postgresql() -> Iterator[str]:
    """Start a server; yields the URL of an empty database of its own."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    assert initdb is not None, MISSING
    assert pg_ctl is not None, MISSING
    user = unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="rg-pg-"))
    try:
        if user is not None:
            shutil.chown(folder, user)

        def run(*command: str) -> None:
            with (folder / "log").open("a") as log:
                done = subprocess.run(command, stdout=log, stderr=log, user=user, cwd=folder, timeout=120, env=environment)
            assert done.returncode == 0, (folder / "log").read_text()

        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(folder)}
        data = str(folder / "data")
        run(initdb, "-D", data, "-U", "runs", "-A", "trust", "-E", "UTF8", "--no-sync")
        run(pg_ctl, "-D", data, "-w", "-l", str(folder / "server.log"), "-o", f"-k {folder} -c listen_addresses=", "start")
        try:
            yield f"postgresql://runs@/postgres?host={folder}"
        finally:
            run(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
