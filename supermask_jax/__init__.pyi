from . import actions as actions
from . import analysis as analysis
from . import criteria as criteria
from . import interop as interop
from . import mask_files as mask_files
from . import masks as masks
from . import population as population
from . import rates as rates
from . import rounds as rounds
from . import saliency as saliency
from . import sparse as sparse
from . import supermasks as supermasks
from . import training as training
from . import transforms as transforms
from . import trees as trees
from .masks import prune as prune
from .population import map_members as map_members
from .rounds import advance as advance
from .rounds import begin as begin
from .rounds import start_params as start_params
from .training import make_training as make_training
from .transforms import freeze_pruned as freeze_pruned
from .trees import prunable_leaves as prunable_leaves

__version__: str
