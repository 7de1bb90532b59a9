"""Runs the code of a notebook, cell after cell, as a fresh kernel would."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    notebook = json.loads(Path(sys.argv[1]).read_text())
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
