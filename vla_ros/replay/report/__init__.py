"""The report of a replay or of a live run: one HTML file for a browser, with nothing beside it."""

from vla_ros.replay.report.page import write_report
from vla_ros.replay.report.strip import Pictures, read_pictures

__all__ = ["Pictures", "read_pictures", "write_report"]
