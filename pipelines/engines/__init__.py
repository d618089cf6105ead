"""Stages of dvc.yaml side by side, each after those it depends on. Knows DVC, not ZenML."""
