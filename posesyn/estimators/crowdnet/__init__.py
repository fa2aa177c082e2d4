"""3DCrowdNet (Choi et al., CVPR 2022)."""
