"""The one table of a run: markdown for people, JSON for scripts."""

import json
from pathlib import Path

from figures import Figure

COLUMNS = ("question", "measured", "reference", "score", "at least / at most", "aim", "verdict", "notes")


def markdown(figures: list[Figure], card: dict[str, str]) -> str:
    """The machine card and the table."""
    lines = [", ".join(f"{name} {value}" for name, value in card.items()), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    lines += ["| " + " | ".join(row(figure)) + " |" for figure in figures]
    return "\n".join(lines) + "\n"


def row(figure: Figure) -> tuple[str, ...]:
    """The cells of one figure."""
    sign = "≥" if figure.at_least else "≤"
    return (
        figure.question,
        figure.measured,
        figure.reference or "–",
        quantity(figure.score, figure.unit),
        f"{sign} {quantity(figure.bar, figure.unit)}",
        "–" if figure.aim is None else f"{sign} {quantity(figure.aim, figure.unit)}",
        figure.verdict,
        figure.detail or "–",
    )


def quantity(value: float, unit: str) -> str:
    """A number with three digits and its unit."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{text}{unit}" if unit == "×" else f"{text} {unit}".rstrip()


def save(figures: list[Figure], card: dict[str, str], folder: Path) -> Path:
    """Write the table as `<date>-<commit>.md` and the same with all samples as `.json`; the path of the former."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{card['date'][:10]}-{card['commit']}"
    content = {"machine": card, "figures": [figure.as_json() for figure in figures]}
    (folder / f"{stem}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    table = folder / f"{stem}.md"
    table.write_text(markdown(figures, card))
    return table
