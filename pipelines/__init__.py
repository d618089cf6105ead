"""ZenML over DVC: the comparison and the scheduled retraining as tracked pipelines."""
