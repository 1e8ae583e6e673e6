"""From the outputs of graphs to normalised actions, by the type of the manifest's decoder."""

from vla_ros.policy.decoders.action_tokens import ActionTokens
from vla_ros.policy.decoders.decoder import Decoder, DecodingError
from vla_ros.policy.decoders.diffusion import Diffusion
from vla_ros.policy.decoders.direct import Direct
from vla_ros.policy.decoders.flow import Flow
from vla_ros.policy.manifest import ActionTokensDecoder, DiffusionDecoder, FlowDecoder, Manifest

__all__ = ["Decoder", "DecodingError", "make_decoder"]


def make_decoder(manifest: Manifest) -> Decoder:
    """Return the decoder that the manifest asks for."""
    settings = manifest.decoder
    if isinstance(settings, FlowDecoder):
        return Flow(manifest, settings)
    if isinstance(settings, DiffusionDecoder):
        return Diffusion(manifest, settings)
    if isinstance(settings, ActionTokensDecoder):
        return ActionTokens(manifest, settings)
    return Direct(manifest, settings)
