"""Cut a CNN into a bundle that camrt explains, and compile a bundle into one file that explains itself."""

from exporters.compile import Compiled, compile_bundle
from exporters.export import export, layers
from exporters.layers import LayerChoice
from exporters.page import write_page

__all__ = ["Compiled", "LayerChoice", "compile_bundle", "export", "layers", "write_page"]
