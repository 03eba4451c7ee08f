"""Scene -> Boxes: detectors propose the regions of interest."""

from o2s.detect.clusters import ClusterDetector, ClustersConfig
from o2s.detect.detector import Detector

__all__ = ["ClusterDetector", "ClustersConfig", "Detector"]
