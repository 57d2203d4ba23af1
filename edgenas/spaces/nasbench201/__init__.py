"""NAS-Bench-201: `cell` says what an architecture is, `space` what can be asked of it, `network` is its torch module,
`stack` computes several of those as one, `features` is what costs are predicted from."""

from edgenas.spaces.nasbench201.cell import AVGPOOL, CONV1X1, CONV3X3, EDGES, NONE, OPERATIONS, SIZE, SKIP
from edgenas.spaces.nasbench201.space import NASBench201

__all__ = ["AVGPOOL", "CONV1X1", "CONV3X3", "EDGES", "NONE", "OPERATIONS", "SIZE", "SKIP", "NASBench201"]
