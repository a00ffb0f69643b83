"""The plain face, for people: POST /v1/explain with a photo; /v1/models, /v1/methods and /v1/samples."""

from __future__ import annotations

from camrt.server.v1.routes import routes as routes
