"""Programs that the package is compared with, each as short as an honest program can be."""
