"""Rendering: motions become clips with exact labels.

``renderer.AnimationRenderer`` is the stage; ``mesh_backend.MeshBackend`` the renderer that is shipped, on top of the
z-buffer in ``rasterizer``. Other renderers register in ``backends``.
"""
