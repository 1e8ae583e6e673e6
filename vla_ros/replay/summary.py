"""What a recorded run says in figures: latencies, rates, violations."""

from pathlib import Path

from vla_ros.replay.bags import BagError
from vla_ros.replay.judge import JudgeError, judge_bag
from vla_ros.replay.timing import latencies


def summarise(bag: Path, robot_file: Path) -> dict[str, object]:
    """Return the figures of a bag, ready for JSON.

    Keys: `image_to_command_ms` and `image_to_safe_command_ms` (each with `p50` and `p99`),
    `policy_hz` and `safe_command_hz` (mean rates of the messages), `chunk_hz` (of inferences that
    were executed), `violations` (ticks of `/safe_command` outside a bound), `violations_by_bound`,
    `ticks`, and `problem` where the bag holds too little to judge: then violations is None.
    """
    figures: dict[str, object] = {"violations": None}
    try:
        timing = latencies(bag).percentiles()
        figures |= {key: _rounded(value) for key, value in timing.items()}
        verdict = judge_bag(bag, robot_file)
    except (BagError, JudgeError) as err:
        return {**figures, "problem": str(err)}
    return {
        **figures,
        "violations": verdict.violations,
        "violations_by_bound": verdict.by_bound,
        "ticks": verdict.ticks,
    }


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 3) if isinstance(value, float) else value
