"""The methods, one paper a file; importing them fills the catalogue."""

from camrt.methods.cluster_cam import cluster_cam, cluster_maps
from camrt.methods.registry import METHODS, Method, Parameter, get_method

__all__ = ["METHODS", "Method", "Parameter", "cluster_cam", "cluster_maps", "get_method"]
