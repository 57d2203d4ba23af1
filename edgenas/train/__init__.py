"""Full-size training: `Training` is the loop, `load_trained` gives back what it left in a run's folder."""

from edgenas.train.files import Trained, load_trained
from edgenas.train.loop import Training
from edgenas.train.settings import TrainSettings, default_epochs

__all__ = ["Trained", "TrainSettings", "Training", "default_epochs", "load_trained"]
