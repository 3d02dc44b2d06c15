"""The figures of a report as files: SVG, and PNG where something here can draw it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from headrace.bench.drawings import groups
from headrace.bench.engines import Peer
from headrace.bench.environments import install, missing, python_of
from headrace.bench.results import Results

#: What a figure needs where no page is around it.
_STYLE = (
    "<style>svg { font: 12px sans-serif; } text { fill: #222; } .small { font-size: 9px; } "
    ".grid { stroke: #ddd; } .floor { stroke: #888; stroke-dasharray: 3 3; }</style>"
    '<rect width="100%" height="100%" fill="white"/>'
)
_PNG_WIDTH = 1720
_NO_WORD = re.compile(r"[^\w]+")
#: It draws SVG by itself, and comes as a wheel.
_DRAWER = Peer("figures", "", "tool", "", requirements=("resvg-py>=0.2",))
_SCRIPT = """
import pathlib, resvg_py, sys
for name in sys.argv[2:]:
    drawn = resvg_py.svg_to_bytes(svg_path=name, width=int(sys.argv[1]))
    pathlib.Path(name).with_suffix(".png").write_bytes(bytes(drawn))
"""


def write(results: Results, folder: Path, *, do_install: bool = False) -> str:
    """Write a file for each figure.

    Args:
        results: of a run.
        folder: for nothing else: older figures there are removed.
        do_install: whether what draws PNG may be installed.

    Returns:
        Why there is no PNG; empty if there is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        old.unlink()
    files = []
    for group in groups(results):
        for label, figure in group.figures.items():
            opening, _, rest = figure.partition(">")
            width, height = re.findall(r"viewBox=\"0 0 (\d+) (\d+)\"", opening)[0]
            file = folder / f"{group.name}-{_NO_WORD.sub('-', label)}.svg"
            file.write_text(f'{opening} width="{width}" height="{height}">{_STYLE}{rest}\n')
            files.append(str(file))
    if not files:
        return ""
    if reason := (install(_DRAWER) if do_install else missing(_DRAWER)):
        return f"what draws PNG: {reason}"
    command = [str(python_of(_DRAWER)), "-c", _SCRIPT, str(_PNG_WIDTH), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""
