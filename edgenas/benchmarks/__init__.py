"""Tabular benchmarks: what others measured of all architectures of a space. One folder each; a plug-in, registered
under the space's name (edgenas.architecture.TabularBenchmark)."""
