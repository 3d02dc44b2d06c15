"""Where the hosts' own tests come from: they are fetched, and never copied into this repository."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def cpython_tests(place, *files):
    """Give a directory whose package `test` has these files of CPython's tests, from Debian's package of them.

    The package's foundation, `test.support`, is that of this interpreter.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    package, suite = f"libpython{version}-testsuite", place / f"cpython-{version}"
    if not suite.exists():
        support = Path(sys.base_prefix, "lib", f"python{version}", "test", "support")
        if not support.is_dir():
            pytest.skip(f"{sys.executable} comes without test.support, which CPython's tests need")
        with_files = place / "unpacked"
        with_files.mkdir(exist_ok=True)
        try:
            run("apt-get", "download", package, cwd=with_files)
            run("dpkg", "-x", *map(str, with_files.glob("*.deb")), ".", cwd=with_files)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"CPython's tests cannot be had as the Debian package {package}: {error}")
        making = place / "making" / "test"
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(support, making / "support")
        shutil.copy(support.parent / "__init__.py", making)
        for file in files:
            shutil.copy(with_files / "usr" / "lib" / f"python{version}" / "test" / file, making)
        making.parent.rename(suite)
    return suite


def run(*command, cwd):
    """Run a program, and raise what it wrote if it failed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
