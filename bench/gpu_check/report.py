"""What was found, kept on disk after every row: as JSON, and as a table for people."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

Row = dict[str, Any]

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


class Report:
    """Sections of rows.

    Args:
        stem: Path of the files, without a suffix.
        about: Where and when.
        sections: Of an earlier process of the same run.
    """

    def __init__(
        self, stem: Path, about: dict[str, Any], sections: dict[str, Any] | None = None
    ) -> None:
        self.stem, self.about = stem, about
        self.sections: dict[str, Any] = sections or {}
        self._begun = 0.0

    def begin(self, section: str) -> None:
        """Rows are of ``section`` from now on."""
        self._begun = time.perf_counter()
        self.sections[section] = {"status": "cut short", "seconds": 0.0, "rows": []}
        print(f"\n## {section}", flush=True)
        self.save()

    def row(self, section: str, row: Row) -> None:
        """Keep a row."""
        self.sections[section]["rows"].append(row)
        print("  ".join(f"{name}: {shown(value)}" for name, value in row.items()), flush=True)
        self.save()

    def end(self, section: str, reason: str = "") -> None:
        """Close ``section``; it failed if one of its rows did or for a ``reason``."""
        found = self.sections[section]
        failed = [row for row in found["rows"] if FAILED in row]
        found["status"] = FAILED if failed or reason else OK
        if reason:
            found["reason"] = reason
        found["seconds"] = round(time.perf_counter() - self._begun, 1)
        self.save()

    def rows(self, section: str) -> list[Row]:
        """Those of ``section`` so far; none where it has not run."""
        found: list[Row] = self.sections.get(section, {}).get("rows", [])
        return found

    @property
    def has_failed(self) -> bool:
        """Whether a section was not all right."""
        return any(section["status"] != OK for section in self.sections.values())

    def save(self) -> None:
        """Write both files."""
        self.stem.parent.mkdir(parents=True, exist_ok=True)
        found = {"about": self.about, "sections": self.sections}
        self.stem.with_name(f"{self.stem.name}.json").write_text(json.dumps(found, indent=1) + "\n")
        self.stem.with_name(f"{self.stem.name}.txt").write_text(self.table())

    def table(self) -> str:
        """All of it, to read."""
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        for name, section in self.sections.items():
            lines += ["", f"## {name}: {section['status']}, {section['seconds']} s"]
            if section.get("reason"):
                lines.append(section["reason"])
            lines += _aligned(section["rows"])
        return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _aligned(rows: list[Row]) -> list[str]:
    """A block for each run of rows of one kind: those whose first two columns have one name."""
    lines: list[str] = []
    for _, block in itertools.groupby(rows, lambda row: list(row)[:2]):
        found = list(block)
        header = list(dict.fromkeys(name for row in found for name in row))
        cells = [[shown(row[name]) if name in row else "" for name in header] for row in found]
        table = [header, *cells]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
    return lines
