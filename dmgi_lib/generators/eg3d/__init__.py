"""EG3D (Chan et al. 2022, arXiv 2112.07945): faces in three dimensions, seen from any camera.

cameras → planes → volume rendering → super-resolution, put together in `generator`; `views`, `mesh`
and `viewer` are what a user sees of it.
"""

from dmgi_lib.generators.eg3d.cameras import look_at
from dmgi_lib.generators.eg3d.generator import EG3DOutput, TriPlaneBackbone, TriPlaneGenerator
from dmgi_lib.generators.eg3d.volume_rendering import RenderingConfig

__all__ = ["EG3DOutput", "RenderingConfig", "TriPlaneBackbone", "TriPlaneGenerator", "look_at"]
