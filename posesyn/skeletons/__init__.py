"""Joint orders by name, and conversions between them."""

from posesyn.skeletons.skeleton import SKELETONS, Skeleton, add_midpoints, convert, detect_h36m_order, get, mapping

__all__ = ["SKELETONS", "Skeleton", "add_midpoints", "convert", "detect_h36m_order", "get", "mapping"]
