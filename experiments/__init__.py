"""The recipes: a module each; its main(config, workdir) returns its results."""

import importlib


def run(config, workdir):
  """Runs the recipe that `config.experiment` names; returns its results."""
  return importlib.import_module(f'experiments.{config.experiment}').main(
    config, workdir
  )
