"""What goes wrong in an export."""

import importlib.util


class ExportError(ValueError):
    """A model cannot become a bundle. The message names the file and the key, and what to do."""


def require(*modules: str) -> None:
    """Check that modules are installed.

    Raises:
        ExportError: Naming those that are not, and the remedy.

    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        msg = f"needs {', '.join(missing)}: pip install -r requirements/learn.txt"
        raise ExportError(msg)
