"""Full-size training: loop.py is the loop, files.py reads what it left in a run's folder. What is named here needs no
torch."""

from edgenas.train.settings import BALANCES, FINE_TUNING, TrainSettings, default_balance, default_epochs

__all__ = ["BALANCES", "FINE_TUNING", "TrainSettings", "default_balance", "default_epochs"]
