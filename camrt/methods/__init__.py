"""The methods, one paper a file; importing them fills the catalogue.

Its order is that of the lines below: what camrt exists for, Grad-CAM's family, the others.
"""
# ruff: noqa: I001

from camrt.methods.cluster_cam import cluster_cam, cluster_maps
from camrt.methods.group_cam import group_cam, group_maps
from camrt.methods.hires_cam import hires_cam
from camrt.methods.grad_cam import grad_cam
from camrt.methods.grad_cam_plus_plus import grad_cam_plus_plus
from camrt.methods.xgrad_cam import xgrad_cam
from camrt.methods.layer_cam import layer_cam
from camrt.methods.eigen_cam import eigen_cam
from camrt.methods.eigengrad_cam import eigengrad_cam
from camrt.methods.cam import cam
from camrt.methods.ablation_cam import ablation_cam
from camrt.methods.recipro_cam import only_cells
from camrt.methods.score_cam import score_cam
from camrt.methods.rise import RandomMasks
from camrt.methods.registry import GRADIENTS, METHODS, SLOW, Method, Parameter, get_method

__all__ = [
    "GRADIENTS",
    "METHODS",
    "SLOW",
    "Method",
    "Parameter",
    "RandomMasks",
    "ablation_cam",
    "cam",
    "cluster_cam",
    "cluster_maps",
    "eigen_cam",
    "eigengrad_cam",
    "get_method",
    "grad_cam",
    "grad_cam_plus_plus",
    "group_cam",
    "group_maps",
    "hires_cam",
    "layer_cam",
    "only_cells",
    "score_cam",
    "xgrad_cam",
]
