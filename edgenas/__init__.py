"""EdgeNAS: the best network for your board within your budget."""

__version__ = "0.1.0"
