"""Deploying an environment: facts, plan, run."""

from mistudio_ops.operations.deploy.context import MigrationOptions
from mistudio_ops.operations.deploy.deploy import deploy
from mistudio_ops.operations.deploy.result import DeployResult

__all__ = ["DeployResult", "MigrationOptions", "deploy"]
