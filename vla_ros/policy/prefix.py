"""What is left of the running chunk, for the next chunk to continue: real-time chunking (RTC).

K. Black, M. Y. Galliker, S. Levine, Real-Time Execution of Action Chunking Flow Policies, 2025,
arXiv:2506.07339.
"""

from dataclasses import dataclass

from vla_ros.types import Array


@dataclass(frozen=True, slots=True)
class Prefix:
    """What is left of the running chunk when the next one is asked for.

    Attributes:
        actions: Its actions from the first one on that is executed after the observation, as the
            model gives them (normalised), shape (m, k).
        frozen: The first so many of them are executed before the next chunk can have come.
        weights: How much each counts, 1 to 0, shape (m,): 1 for those that are frozen.
        beta: Greatest strength of the guidance (beta in the paper, eq. 2).

    """

    actions: Array
    frozen: int
    weights: Array
    beta: float = 5.0
