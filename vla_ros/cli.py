"""The `vla_ros` command."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "demo": ("vla_ros.demo", "run the whole loop in simulation, and record it"),
    "eval": (
        "vla_ros.learn.evaluate",
        "measure a policy over many episodes, faster than real time",
    ),
    "judge": ("vla_ros.replay.judge", "count the violations and latencies in a recorded bag"),
}
LEARN_COMMANDS = {
    "generate": ("vla_ros.learn.generate", "record demonstrations of the scripted expert"),
    "train": ("vla_ros.learn.train", "train a policy on the demonstrations"),
    "export": ("vla_ros.learn.export", "export a trained policy to a bundle"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="vla_ros", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, COMMANDS, words[:1])
    learn = commands.add_parser("learn", help="make a policy: generate, train, export")
    _add(
        learn.add_subparsers(dest="step", required=True, metavar="STEP"),
        LEARN_COMMANDS,
        words[1:2] if words[:1] == ["learn"] else [],
    )
    args = parser.parse_args(words)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError, ImportError) as err:
        print(f"vla_ros {' '.join(words[:1])}: {err}", file=sys.stderr)
        return 1


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    modules: dict[str, tuple[str, str]],
    chosen: Sequence[str],
) -> None:
    """Add a parser for each module, importing only the chosen one: torch and MuJoCo load slowly."""
    for name, (module_name, text) in modules.items():
        parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if name in chosen:
            module = import_module(module_name)
            module.add_arguments(parser)
            parser.set_defaults(run=module.run)


if __name__ == "__main__":
    sys.exit(main())
