"""`vla_ros serve`: offer a bundle by the openpi protocol, to any of its clients."""

import argparse
from pathlib import Path

from vla_ros.arguments import threads, whole
from vla_ros.policy.backends import BackendOptions
from vla_ros.policy.bundle import Bundle, write_manifest
from vla_ros.policy.policy import Policy

_MISSING = "serving needs msgpack and websockets: pip install 'vla_ros[openpi]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (%(default)s: this machine alone; 0.0.0.0: every network)",
    )
    parser.add_argument(
        "--port", type=whole(0, 65535), default=8000, help="port (%(default)s; 0: any free)"
    )
    parser.add_argument("--provider", default="cpu", help="cpu, cuda or tensorrt (%(default)s)")
    parser.add_argument("--threads", type=threads, default=1, help="threads of an inference")
    parser.add_argument(
        "--cache-dir", type=Path, metavar="DIR", help="where TensorRT keeps its engines"
    )
    parser.add_argument(
        "--cuda-graph", action="store_true", help="replay each inference on a GPU as one launch"
    )
    parser.add_argument(
        "--client",
        type=Path,
        metavar="OUT",
        help="only write the bundle that robots use with this server, and end",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; return the exit code.

    Raises:
        BundleError: If the bundle cannot be used.
        OSError: If the port is taken.

    """
    try:
        from vla_ros.policy.serving import PolicyServer, client_manifest  # noqa: PLC0415
    except ImportError as err:
        raise ImportError(_MISSING) from err
    bundle = Bundle.load(args.folder)
    if args.client is not None:
        args.client.mkdir(parents=True, exist_ok=True)
        write_manifest(args.client, client_manifest(bundle.manifest))
        print(f"{args.client}: for policy_node with the parameter 'server'")
        return 0
    options = BackendOptions(
        provider=args.provider,
        threads=args.threads,
        cache_dir=args.cache_dir,
        cuda_graph=args.cuda_graph,
    )
    policy = Policy(bundle, options)
    server = PolicyServer(policy, bundle.manifest, tell=lambda line: print(line, flush=True))
    with server.listen(args.host, args.port) as listening:
        host, port = listening.socket.getsockname()[:2]
        print(f"serving {bundle.manifest.name!r} at ws://{host}:{port}", flush=True)
        listening.serve_forever()
    return 0
