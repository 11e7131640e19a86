"""The configurations: run.yaml, and one YAML an experiment in experiment/. A package, so that they travel in the wheel."""
