"""Run one probe: `python start.py REQUEST.json`; the last line of stdout is its observation in JSON."""

import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGE = "labsync_smoke"


def main() -> None:
    """Load the probes as a package of their own, and serve the request."""
    smoke = Path(__file__).resolve().parents[1]
    # This folder holds a `segment_anything.py`, which would hide Meta's package of that name.
    del sys.path[0]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, smoke / "__init__.py", submodule_search_locations=[str(smoke)]
    )
    assert spec is not None
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    importlib.import_module(f"{PACKAGE}.probes.serve").serve(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
