"""Reading evaluation and calibration data: tables, folders, audio, images and hub data sets."""
