"""Scene -> Boxes: detectors propose the regions of interest."""

from o2s.detect.clusters import ClusterDetector, ClustersConfig
from o2s.detect.detector import Detector, LearnedDetector
from o2s.detect.detr3d import Detr3d, Detr3dConfig
from o2s.detect.tr3d import Tr3d, Tr3dConfig

__all__ = [
    "ClusterDetector",
    "ClustersConfig",
    "Detector",
    "Detr3d",
    "Detr3dConfig",
    "LearnedDetector",
    "Tr3d",
    "Tr3dConfig",
]
