"""The DDS domain and Cyclone DDS configuration that ROS's environment variables ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

if TYPE_CHECKING:
    from collections.abc import Mapping

RECEIVE_BUFFER_MB = 4
# Participants on a host are found on ports 7400 + 250 * domain + 10 + 2 * index, so 119 is the end.
MAX_PARTICIPANT_INDEX = 99
DISCOVERY_RANGES = ("", "SYSTEM_DEFAULT", "SUBNET", "LOCALHOST", "OFF")


def domain_id_from(environment: Mapping[str, str]) -> int:
    """Return the domain of ROS_DOMAIN_ID (0 when unset); raise ValueError unless it is 0..232."""
    text = environment.get("ROS_DOMAIN_ID", "").strip()
    if not text:
        return 0
    try:
        domain = int(text)
    except ValueError:
        msg = f"ROS_DOMAIN_ID={text!r} is not a number: set it to 0..232"
        raise ValueError(msg) from None
    return check_domain_id(domain, "ROS_DOMAIN_ID")


def check_domain_id(domain: int, where: str = "domain_id") -> int:
    """Return `domain`; raise ValueError naming `where` unless its UDP ports exist (0..232)."""
    if not 0 <= domain <= 232:
        msg = f"{where}={domain} is outside 0..232: above 232 the UDP ports of DDS do not exist"
        raise ValueError(msg)
    return domain


def localhost_only(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks to stay on this host; raise ValueError on an unknown word."""
    only = environment.get("ROS_LOCALHOST_ONLY", "").strip()
    if only not in ("", "0", "1"):
        msg = f"ROS_LOCALHOST_ONLY={only!r}: must be 0 or 1"
        raise ValueError(msg)
    return only == "1" or _discovery_range(environment) == "LOCALHOST"


def cyclonedds_configuration(environment: Mapping[str, str]) -> str:
    """Return the configuration for Cyclone DDS: ours, then the user's CYCLONEDDS_URI, which wins.

    Large messages want large datagrams and a socket buffer that holds a few images; a kernel that
    permits less (net.core.rmem_max) is asked for what it has.
    """
    general = ["<MaxMessageSize>65500B</MaxMessageSize>"]
    discovery = []
    peers = [
        peer.strip() for peer in environment.get("ROS_STATIC_PEERS", "").split(";") if peer.strip()
    ]
    if localhost_only(environment):
        general.append(
            '<Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>'
            "<AllowMulticast>false</AllowMulticast>"
        )
        peers = ["127.0.0.1"]
    elif _discovery_range(environment) == "OFF":
        general.append("<AllowMulticast>false</AllowMulticast>")
        peers = []
    if peers:
        addresses = "".join(f"<Peer address={quoteattr(peer)}/>" for peer in peers)
        discovery.append(f"<Peers>{addresses}</Peers>")
        discovery.append("<ParticipantIndex>auto</ParticipantIndex>")
        discovery.append(
            f"<MaxAutoParticipantIndex>{MAX_PARTICIPANT_INDEX}</MaxAutoParticipantIndex>"
        )
    minimum = f"{RECEIVE_BUFFER_MB}MB" if _kernel_permits_receive_buffer() else "default"
    ours = (
        '<CycloneDDS><Domain Id="any">'
        f"<General>{''.join(general)}</General>"
        f"<Discovery>{''.join(discovery)}</Discovery>"
        f'<Internal><SocketReceiveBufferSize min="{minimum}" max="{RECEIVE_BUFFER_MB}MB"/>'
        "</Internal></Domain></CycloneDDS>"
    )
    users = environment.get("CYCLONEDDS_URI", "").strip()
    return f"{ours},{users}" if users else ours


def _discovery_range(environment: Mapping[str, str]) -> str:
    word = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip()
    if word not in DISCOVERY_RANGES:
        msg = (
            f"ROS_AUTOMATIC_DISCOVERY_RANGE={word!r}: must be one of "
            f"{', '.join(DISCOVERY_RANGES[1:])}"
        )
        raise ValueError(msg)
    return word


def _kernel_permits_receive_buffer() -> bool:
    try:
        limit = int(Path("/proc/sys/net/core/rmem_max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return limit >= RECEIVE_BUFFER_MB * 2**20
