"""Outcomes of expectations as JUnit XML, which continuous integration reads."""

import xml.etree.ElementTree as ET
from pathlib import Path

from vla_ros.replay.result import Outcome, ReplayResult


def write_junit(result: ReplayResult, path: Path) -> None:
    """Write one test suite for the bag, with a test case for each expectation.

    Raises:
        OSError: If it cannot be written.

    """
    suite = ET.Element(
        "testsuite",
        name=f"vla_ros replay {result.bag.name} ({result.mode})",
        tests=str(len(result.expectations)),
        failures=str(sum(not outcome.passed for outcome in result.expectations)),
        errors="0",
        skipped="0",
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in {"hash": result.hash, "bag": str(result.bag), **result.versions}.items():
        ET.SubElement(properties, "property", name=name, value=value)
    for outcome in result.expectations:
        case = ET.SubElement(
            suite, "testcase", classname=f"replay.{result.bag.name}", name=_title(outcome)
        )
        if not outcome.passed:
            failure = ET.SubElement(case, "failure", message=_first_line(outcome.message))
            failure.text = outcome.message
    if result.warnings:
        ET.SubElement(suite, "system-err").text = "\n".join(result.warnings)
    root = ET.Element("testsuites")
    root.append(suite)
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = ET.ElementTree(root)
    ET.indent(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _title(outcome: Outcome) -> str:
    return f"{outcome.metric} {outcome.expected}"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
