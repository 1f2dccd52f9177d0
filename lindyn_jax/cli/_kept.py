"""What a study's command printed, kept in its store: `show` prints it again without the data, and without computing anything."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import _files
from ..ensemble.names import ROOT
from ..ensemble.records import checksum_of
from ..studies.study import Table

FILE = "summary.json"


class Kept(NamedTuple):
    """What was printed.

    **Fields:** `parts`, tables and sentences; `rows`, of `--csv` and `--json`; `summary`, of `--json`; `version`, of the package.
    """

    parts: list[Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    version: str | None = None


def keep(place: _files.Place, progress: Sequence[int], parts: Sequence[Any], told: Mapping[str, Any]) -> None:
    """Writes it into the store, unless it is there; where nothing can be written, `show` has the numbers of the store alone.

    **Args:** `place`, of the store; `progress`, as of `progress_of`; `parts`; `told`, what `--json` prints.
    """
    try:
        known = {
            "of": [_identity(place), *progress],
            # Sentences are texts, tables dictionaries.
            "parts": [dict(getattr(part, "_asdict", dict)()) or part for part in parts],
            "rows": told["rows"],
            "summary": told["summary"],
            "version": told["version"],
        }
        data = json.dumps({**known, "checksum": checksum_of(json.loads(json.dumps(known)))}).encode()
        if data != _files.read(place / FILE):
            _files.put(place / FILE, data)
    except Exception as error:
        if not _files.is_fault(error):
            raise


def kept(place: _files.Place, progress: Sequence[int]) -> Kept | None:
    """What was printed of a store as it is now; `None` where nothing was, or of another state."""
    try:
        known = json.loads(_files.read(place / FILE) or b"{}")
    except ValueError:
        return None
    if known.get("checksum") != checksum_of(known) or known["of"] != [_identity(place), *progress]:
        return None
    parts = [part if type(part) is str else Table(**part) for part in known["parts"]]
    return Kept(parts, known["rows"], known["summary"], known.get("version"))


def _identity(place: _files.Place) -> str:
    return json.loads(_files.read(place / ROOT) or b"")["attributes"]["identity"]
