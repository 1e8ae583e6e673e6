"""The `vla_ros` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

COMMANDS = {
    "demo": ("vla_ros.demo", "run the whole loop in simulation, and record it"),
    "eval": (
        "vla_ros.learn.evaluate",
        "measure a policy over many episodes, faster than real time",
    ),
    "play": ("vla_ros.replay.play", "publish a bag again, in step with the nodes if need be"),
    "record": ("vla_ros.replay.record", "record topics into a bag that survives a crash"),
    "replay": ("vla_ros.replay.replay", "step a recorded bag through the pipeline, and check it"),
    "report": ("vla_ros.replay.report.command", "draw a recorded run as one HTML file"),
    "serve": ("vla_ros.policy.commands.serve", "offer a bundle to clients of the openpi protocol"),
    "triton": ("vla_ros.policy.commands.triton", "write a bundle for a Triton server"),
    "judge": ("vla_ros.replay.summary", "count the violations and latencies in a recorded bag"),
}
LEARN_COMMANDS = {
    "generate": ("vla_ros.learn.generate", "record demonstrations of the scripted expert"),
    "train": ("vla_ros.learn.train", "train a policy on the demonstrations"),
    "export": ("vla_ros.learn.export", "export a trained policy to a bundle"),
}
BUNDLE_COMMANDS = {
    "check": ("vla_ros.policy.commands.check", "load a bundle, and run each of its graphs once"),
    "show": ("vla_ros.policy.commands.show", "show what a bundle's model takes and gives"),
    "schema": ("vla_ros.policy.commands.schema", "print the JSON Schema of the manifest"),
}
EXPORT_COMMANDS = {
    "lerobot": ("vla_ros.export.lerobot.command", "export a LeRobot checkpoint to a bundle"),
    "torch": ("vla_ros.export.torch_command", "export a torch.export program to a bundle"),
    "onnx": ("vla_ros.export.onnx_command", "make a bundle of ONNX files and a manifest"),
}

SAFETY_COMMANDS = {
    "compile": ("vla_ros.safety.compile", "compile the filter now, not when it first starts"),
    "explain": ("vla_ros.safety.explain", "show what a robot file bounds, and how the arm stops"),
    "lag": ("vla_ros.safety.lag", "measure the delay and tracking error of an arm in a run"),
    "campaign": ("vla_ros.safety.campaign", "drive the filter with an adversary, and judge it"),
    "closed-loop": ("vla_ros.sim.adversary", "the same around the simulated Panda"),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with an argument in one line, which a screen of usage would hide."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help shows what there is\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(prog="vla_ros", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, COMMANDS, words[:1])
    for group, text, members in (
        ("learn", "make a policy: generate, train, export", LEARN_COMMANDS),
        ("export", "make a bundle of a model: lerobot, torch, onnx", EXPORT_COMMANDS),
        ("bundle", "policy bundles: check, show", BUNDLE_COMMANDS),
        ("safety", "the safety filter: explain a robot file, attack the filter", SAFETY_COMMANDS),
    ):
        parser_of_group = commands.add_parser(group, help=text)
        _add(
            parser_of_group.add_subparsers(dest="step", required=True, metavar="STEP"),
            members,
            words[1:2] if words[:1] == [group] else [],
        )
    args = parser.parse_args(words)
    args.argv = words
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough, as `head` has; what is left of it goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell has it of a process that SIGPIPE ended
    except (OSError, ValueError, RuntimeError, ImportError) as err:
        print(f"vla_ros {' '.join(words[:1])}: {err}", file=sys.stderr)
        return 1
    return code


def _add(
    commands: "argparse._SubParsersAction[_Parser]",
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
