"""The Python API behind `import lambert`; the command line calls it too."""
