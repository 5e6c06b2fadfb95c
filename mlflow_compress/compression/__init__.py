"""What several methods share: layers, packed and sparse weights, calibration, graphs for other runtimes."""
