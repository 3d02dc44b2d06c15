"""The rules of the house that a test can keep: sizes, layers, imports, and nothing of anybody's machine."""

import ast
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

import headrace

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "headrace"
LINES_MAX = 500

#: Which crates of the workspace each crate may know.
CRATES_BELOW = {
    "kernel": set(),
    "wire": set(),
    "sys": set(),
    "protocol": {"kernel", "wire"},
    "runtime": {"protocol", "sys", "kernel", "wire"},
    "bridge": {"runtime", "protocol", "sys", "kernel", "wire"},
    "sim": {"protocol", "kernel", "wire"},
}
#: Foreign crates that only one room may hold.
ONLY_IN = {"pyo3": {"bridge"}, "libloading": {"sys"}}
#: Crates that never see a socket, a clock, a thread or a file.
PURE = ("kernel", "wire", "protocol")
OUTSIDE_WORLD = re.compile(r"\bstd::(time::(Instant|SystemTime)|net|thread|fs|process|os|env)\b")
SAFE = ("kernel", "wire", "protocol", "runtime", "sim")
NOT_IMPORTED = {"zmq", "cloudpickle", "concurrent.futures", "numpy", "click", "rich"}


def tracked_files():
    """Every file of the repository, as git knows them."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def source_files():
    """Rust and Python sources; tests are lists of cases, and may be as long as their list."""
    sources = [path for path in tracked_files() if path.suffix in {".rs", ".py", ".pyi"}]
    return [path for path in sources if "tests" not in path.relative_to(ROOT).parts]


def test_no_source_file_is_long():
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in source_files()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }
    assert not too_long, f"more than {LINES_MAX} lines: does each still hold one idea? {too_long}"


@pytest.mark.parametrize("crate", CRATES_BELOW)
def test_crates_know_only_those_below(crate):
    manifest = tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text())
    needed = set(manifest.get("dependencies", {}))
    of_ours = {name.removeprefix("headrace-") for name in needed if name.startswith("headrace-")}
    assert of_ours <= CRATES_BELOW[crate]
    misplaced = {name for name in needed if crate not in ONLY_IN.get(name, {crate})}
    assert not misplaced
    if crate == "kernel":
        assert not needed, "the kernel has no dependencies"


def test_every_crate_has_its_layer():
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    assert {Path(member).name for member in members} == set(CRATES_BELOW)


@pytest.mark.parametrize("crate", SAFE)
def test_unsafe_code_stays_in_its_room(crate):
    assert "#![forbid(unsafe_code)]" in (ROOT / "rust" / crate / "src" / "lib.rs").read_text()


@pytest.mark.parametrize("crate", PURE)
def test_pure_crates_do_not_touch_the_outside_world(crate):
    touching = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in (ROOT / "rust" / crate / "src").rglob("*.rs")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if OUTSIDE_WORLD.search(line.split("//")[0])
    ]
    assert not touching


def test_nothing_imports_the_command_line():
    importing = [
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "cli" and path.name != "__main__.py"
        if any(f"{name}.".startswith(("headrace.cli.", "click.")) for name in imported_names(path))
    ]
    assert not importing


def test_the_command_line_uses_the_package_and_not_the_native_part():
    importing = [path.name for path in (PACKAGE / "cli").glob("*.py") if "headrace._core" in imported_names(path)]
    assert not importing


def imported_names(path):
    """Every module that the file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


#: These have agents on clusters of others; tasks do not come through them.
PLACES = {"_placement.py", "dask_cluster.py", "ray_cluster.py"}


def test_adapters_to_hosts_use_public_names_alone():
    adapters = [path for path in (PACKAGE / "integrations").glob("*.py") if path.name not in PLACES]
    others = [path for path in PACKAGE.rglob("*.py*") if path.suffix in {".py", ".pyi"} and path not in adapters]
    texts = [path.read_text(encoding="utf-8") for path in others]
    private = {name for text in texts for name in re.findall(r"(?:self\.|cls\.|def )(_[a-z]\w*)", text)}
    found = []
    for path in adapters:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {name for name in imported_names(path) if name.partition(".")[0] == "headrace"}
        found += [(path.name, name) for name in imported if not f"{name}.".startswith("headrace.integrations.")]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner == "headrace" and node.attr not in headrace.__all__:
                found.append((path.name, f"headrace.{node.attr}"))
            if owner not in {"self", "cls"} and node.attr in private:
                found.append((path.name, node.attr))
    found = [item for item in found if item[1] != "headrace"]
    assert not found


@pytest.mark.parametrize("name", ["headrace", "headrace.cli"])
def test_import_stays_light(name):
    script = f"import sys, {name}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert name in loaded
    assert not NOT_IMPORTED & set(loaded)


def test_no_path_of_this_machine_in_the_repository():
    # Spelt from parts, so that this file does not hold them.
    places = {ROOT, ROOT.parent, Path.home()} - {Path("/"), Path(tempfile.gettempdir())}
    found = [
        f"{path.relative_to(ROOT)}: {place}"
        for path in tracked_files()
        for place in places
        if f"{place}/".encode() in path.read_bytes()
    ]
    assert not found
