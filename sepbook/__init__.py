"""Audio source separation: a course, and a package made from its chapters."""

__version__ = "0.1.0"

import sys
from typing import TYPE_CHECKING

from .engine.face import Face

if TYPE_CHECKING:
    from .engine.export import export as export
    from .engine.face import separate as separate
    from .learner import Learner as Learner
    from .metrics import evaluate as evaluate
    from .separate import Separator as Separator
    from .zoo import available as available
    from .zoo import load as load

sys.modules[__name__].__class__ = Face
