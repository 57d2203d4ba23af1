"""What an architecture costs on a device: measured tables, predictors, MACs and parameters.

A cost plug-in is a function `create(space, dataset, device) -> CostProvider`, registered under `edgenas.costs`; it
raises DataError when the data it needs is not on this machine and UsageError when it does not cover the device.
"""
