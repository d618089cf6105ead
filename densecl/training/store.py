"""Where MLflow keeps trainings, unless MLFLOW_TRACKING_URI says otherwise."""

TRACKING_URI = "sqlite:///mlflow.db"
EXPERIMENT = "densecl"
