"""What goes wrong in an export."""


class ExportError(ValueError):
    """A model cannot become a bundle. The message names the file and the key, and what to do."""
