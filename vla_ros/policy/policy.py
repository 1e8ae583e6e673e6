"""The model of a bundle: from an observation to a chunk of actions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.kinematics import SerialChain
from vla_ros.observation.observation import Observation
from vla_ros.policy.backends import Backend, BackendError, BackendOptions, open_backend
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.decoders import DecodingError, make_decoder
from vla_ros.policy.inputs import InputBuilder, InputError
from vla_ros.policy.manifest import BundleError, Graph, Tensor
from vla_ros.policy.motion import MotionError, leads_to_places, to_motion
from vla_ros.policy.normalise import denormalise
from vla_ros.policy.prefix import Prefix
from vla_ros.policy.rotations import RotationError
from vla_ros.types import Array


class PolicyError(RuntimeError):
    """The model gave no usable actions for an observation."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Actions predicted from one observation, each for one period.

    Attributes:
        stamp_ns: The observation's stamp, t0.
        period_ns: Time of one action.
        twists: Velocity of the TCP in the base frame during each action: linear in m/s, angular in
            rad/s, shape (n, 6).
        gripper: Opening in m commanded with each action, shape (n,); None where the model moves no
            gripper.
        instruction: What the observation was told to do.
        epoch: The observation's.
        actions: What the model said, denormalised, entries `action.names` of the manifest in its
            units, shape (n, k); None where a chunk was made by hand.
        joints: Speeds of the joints during each action, in the robot's order, rad/s, shape (n,
            dof); None where the actions are of the TCP.
        anchored: Whether the actions lead to places rather than being motions of their own: then
            what was executed otherwise since the observation is to be made up for.
        continues: Whether the model was guided to go on with what was left of the running chunk.

    """

    stamp_ns: int
    period_ns: int
    twists: Array
    gripper: Array | None
    instruction: str
    epoch: int = 0
    actions: Array | None = None
    joints: Array | None = None
    anchored: bool = False
    continues: bool = False


class Policy:
    """A bundle's model, ready to run. Not for use from two threads at a time."""

    def __init__(
        self,
        bundle: Bundle,
        options: BackendOptions | None = None,
        *,
        chain: SerialChain | None = None,
    ) -> None:
        """Open the model and run it once, so that the first chunk is not late.

        Args:
            bundle: The bundle.
            options: How its graphs are run.
            chain: The robot's kinematics, which actions of joints need; see `set_chain`.

        Raises:
            BundleError: If the model does not fit the manifest, or cannot be run as asked.

        """
        manifest = bundle.manifest
        self._action = manifest.action
        self._period_ns = bundle.period_ns
        self._chain = chain
        self._inputs = InputBuilder(bundle)
        self._decoder = make_decoder(manifest)
        self._graphs: dict[str, Backend] = {}
        for graph in manifest.graphs:
            backend = open_backend(bundle, graph, options or BackendOptions())
            _try(backend, graph, bundle)
            self._graphs[graph.name] = backend

    @property
    def takes_prefix(self) -> bool:
        """Whether `infer` goes on with a prefix; where not, it does not look at it."""
        return self._decoder.takes_prefix

    def set_chain(self, chain: SerialChain) -> None:
        """Take the robot's kinematics, once it is known."""
        self._chain = chain

    def unknown_words(self, instruction: str) -> tuple[str, ...]:
        """Return the words of `instruction` that the model has never seen.

        Raises:
            InstructionError: If the instruction is too long for the model.

        """
        return self._inputs.unknown_words(instruction)

    def infer(
        self,
        observation: Observation,
        prefix: Prefix | None = None,
        *,
        lap: Callable[[str], None] | None = None,
    ) -> Chunk:
        """Return the actions for an observation: of the same one, and prefix, always the same.

        Args:
            observation: What the model is shown.
            prefix: What is left of the running chunk, to go on with where `takes_prefix`.
            lap: Called as each of the stages `preprocess`, `inference` and `postprocess` ends, with
                its name, for whoever times them.

        Raises:
            PolicyError: If the observation lacks what the model needs, the model cannot be run, or
                its output stands for no motion of this robot.

        """
        action, lap = self._action, lap or _untimed
        actions = self.predict(observation, prefix, lap=lap)
        try:
            # Of numbers too large for a rotation comes NaN, which is refused below.
            with np.errstate(over="ignore", invalid="ignore"):
                motion = to_motion(actions, action, observation, self._chain)
        except (MotionError, RotationError) as err:
            raise PolicyError(str(err)) from err
        finite = np.isfinite(motion.twists).all(axis=1)
        if not finite.all():
            msg = f"the model's output is no finite motion: action {int(np.argmin(finite))}"
            raise PolicyError(msg)
        lap("postprocess")
        return Chunk(
            stamp_ns=observation.stamp_ns,
            period_ns=self._period_ns,
            twists=motion.twists,
            gripper=motion.gripper,
            instruction=observation.instruction,
            epoch=observation.epoch,
            actions=actions,
            joints=motion.joints,
            anchored=leads_to_places(action),
            continues=prefix is not None and self.takes_prefix,
        )

    def predict(
        self,
        observation: Observation,
        prefix: Prefix | None = None,
        *,
        lap: Callable[[str], None] | None = None,
    ) -> Array:
        """Return `Chunk.actions` alone, for which nothing of the robot need be known.

        Arguments and errors are those of `infer`.
        """
        action, lap = self._action, lap or _untimed
        try:
            inputs = self._inputs(observation)
            lap("preprocess")
            outputs = self._decoder.decode(
                self._graphs, inputs, stamp_ns=observation.stamp_ns, prefix=prefix
            )
            lap("inference")
        except (InputError, DecodingError) as err:
            raise PolicyError(str(err)) from err
        except BackendError as err:
            msg = f"the model cannot be run: {err}"
            raise PolicyError(msg) from err
        actions = denormalise(outputs[:, : len(action.names)], action.normalisation)
        if not np.isfinite(actions).all():
            row, column = np.argwhere(~np.isfinite(actions))[0]
            msg = f"the model's output is not finite: {action.names[column]} of action {row}"
            raise PolicyError(msg)
        return actions

    def close(self) -> None:
        """Close what runs the graphs."""
        for backend in self._graphs.values():
            backend.close()


def _untimed(_stage: str) -> None:
    pass


def _try(backend: Backend, graph: Graph, bundle: Bundle) -> None:
    """Run a graph on zeros, and check what comes out.

    Raises:
        BundleError: If it cannot be run, or its outputs are not the manifest's.

    """
    where = f"the bundle {bundle.path}: graph {graph.name!r}"
    try:
        outputs = backend.run({name: _blank(spec) for name, spec in graph.inputs.items()})
    except BackendError as err:
        msg = f"{where}: cannot be run: {err}"
        raise BundleError(msg) from err
    for name, spec in graph.outputs.items():
        shape = tuple(outputs[name].shape) if name in outputs else None
        if shape != spec.shape:
            found = "is not given" if shape is None else f"has the shape {list(shape)}"
            msg = f"{where}: output {name!r} {found}, but the manifest says {list(spec.shape)}"
            raise BundleError(msg)


def _blank(spec: Tensor) -> NDArray[Any]:
    """Return an input of zeros, or of empty texts."""
    return np.full(spec.shape, "" if spec.type == "string" else 0, spec.dtype)
