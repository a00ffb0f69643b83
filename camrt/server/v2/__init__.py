"""The Open Inference Protocol, version 2, over HTTP: what Triton's and KServe's clients speak."""

from camrt.server.v2.routes import routes

__all__ = ["routes"]
