"""The programs that the package is held against, each as short as an honest one can be."""
