"""Notebooks as pages: their text, their code, and the outputs saved in them."""

import json
from pathlib import Path


def pages(folder: Path) -> dict[str, str]:
    """Name and text of the page of every notebook."""
    return {path.stem: page(path) for path in sorted(folder.glob("*.ipynb"))}


def page(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    parts = [part for cell in cells for part in cell_parts(cell)]
    return "\n\n".join([*parts, f"*From `notebooks/{path.name}`, which the tests run.*", ""])


def cell_parts(cell):
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f'<p><img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}"></p>'
        elif text := "".join(output.get("text", data.get("text/plain", []))):
            yield f"```text\n{text.rstrip()}\n```"
