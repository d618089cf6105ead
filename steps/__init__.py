"""One file a stage; `dvc.yaml` and the orchestrated pipelines run nothing else."""
