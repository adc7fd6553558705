"""Writes the class lists of this package: `python -m cn2.trainer.class_lists DATA [OUT]`.

DATA holds the tables that say where they come from: lvis_v1_categories.json,
objects365_categories.json and nuimages_categories.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def columns(records: list[Record]) -> dict[str, list[Any]]:
    """The columns of a table of categories that this package keeps, by ascending id."""
    records = sorted(records, key=lambda record: int(record["id"]))
    kept = {"names": "name", "category_ids": "id"}
    if "frequency" in records[0]:
        kept |= {"frequencies": "frequency", "image_counts": "image_count"}
    return {ours: [record[theirs] for record in records] for ours, theirs in kept.items()}


def write_all(data: Path, out: Path) -> None:
    """Write the lists as JSON, a column a line."""
    tables = {
        "lvis-v1": _read(data / "lvis_v1_categories.json"),
        "objects365-v1": _read(data / "objects365_categories.json")["v1"],
        "nuimages": _read(data / "nuimages_categories.json"),
    }
    for name, records in tables.items():
        lines = [
            f"{json.dumps(key)}: {json.dumps(values, ensure_ascii=False)}"
            for key, values in columns(records).items()
        ]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        (out / f"{name}.json").write_text(text, encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_all(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
