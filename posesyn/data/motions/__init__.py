"""Motion files: AMASS-style npz, BVH, captions of mocap."""
