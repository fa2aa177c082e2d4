"""Rendering: motions become clips with exact labels.

``renderer.AnimationRenderer`` is the stage; ``mesh.backend.MeshBackend`` the renderer that is shipped, on top of the
z-buffer in ``mesh.rasterizer``. Other renderers are registered by name.
"""
