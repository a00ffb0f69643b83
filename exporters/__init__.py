"""Cut a CNN into a bundle that camrt explains."""

from exporters.export import export, layers
from exporters.layers import LayerChoice

__all__ = ["LayerChoice", "export", "layers"]
