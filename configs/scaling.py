"""Scaling laws (3.2): paper, cpu, isoflop, ladder, mixes, valuation, or a known case.

cpu        a whole study on a laptop: 5 budgets, 5 sizes each, the largest held out
paper      the paper's ten budgets and sizes 40M to 16B: an array job
isoflop    fits measured IsoFLOP runs (--data=DIR)
ladder     predicts benchmarks at 7B and 13B from a measured ladder (--data=DIR)
mixes      ranks candidate data mixes by small models (3.1.2)
valuation  values a data set by annealing on it (3.1.3)

mixes_known, valuation_known: the same where the answer is known: half of one mix, or of
the default mix, are lines of random words
"""

import dataclasses

import ml_collections

from configs import pretrain
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.scaling import ladder
from llama3_jax.train.config import AskConfig

MODES = ('paper', 'cpu', 'isoflop', 'ladder', 'mixes', 'valuation')
KNOWN = ('mixes_known', 'valuation_known')
# Found with a first, coarser study: at this size and on this text a model wants 15 to
# 20 tokens a parameter of its matrix products. Batches are small: the models learn to
# copy from the context in a sudden step, after some 600 of them whatever their width.
# At 3.4e11 FLOPs that is in the middle of the sizes, so no budget lies there.
CPU = ladder.Ladder(
  budgets=(2e11, 5.8e11, 1e12, 1.7e12, 2.9e12),
  sizes=(6.5e3, 1.4e4, 2.6e4, 4.3e4, 6e4, 1.05e5, 1.65e5, 2.4e5),
  points=5,
  optimum=(0.5, 1.5),
  batch=(1024, 1024),
  length=64,
  peak=(3e-2, 1.2e-2),
  warmup=100,
  d_head=8,
  group=1,
  layers=2,  # one family: a step in depth would be a step in loss
  hidden=3.0,
  unit=16,
)


def _live(c, plan):
  """Fields of a study that trains its own runs."""
  c.scaling.update(dataclasses.asdict(plan))
  c.scaling.update(
    dict(
      train=True,  # False: only collects the runs of an array job (--sweep_index)
      hold_out=1,  # largest budgets that are trained and kept out of the fits
      window=0,  # runs of a budget around its lowest loss that the parabola sees
      samples=1000,  # of the bootstrap
      target=3.8e25,  # FLOPs to extrapolate to
      tokenizer='',  # tokenizer.model of data.root; '': beside it
      vocabulary=512,  # base ranks of the corpus made here, where data.root is ''
      questions=600,  # 4-way: which passage goes on a held-out text? `mixes`: of each
      prompt=48,  # tokens
      answer=16,  # tokens of each of the four
      step='linear',  # of FLOPs to NLL: linear, power or chinchilla
    )
  )


def _small(c):
  """Toy models, and text that needs no network."""
  c.model = configs.model_fields(dataclasses.replace(llama.TINY, vocab_size=768))
  c.model.block = 0
  c.data.root = ''
  # The text made here has code, math and drill; the others are for a data.root.
  names = ('code', 'math', 'drill', 'general', 'multilingual')
  c.data.mix = ml_collections.ConfigDict({n: 0.0 for n in names})
  c.data.mix.code = 1.0
  c.data.eval_batches = 64
  c.train.update(dict(save_every=1000, keep=1, eval_every=0, log_every=20))


def _study(plan):
  c = pretrain.base()
  c.ask = configs.section(AskConfig(shots=-2))  # of each run's evaluation
  c.experiment = 'scaling'
  c.scaling = ml_collections.ConfigDict(dict(mode='live'))
  _live(c, plan)
  return c


def _measured(mode):
  c = ml_collections.ConfigDict()
  c.experiment = 'scaling'
  c.seed = 0
  c.data = ''  # folder of the measured runs
  c.scaling = ml_collections.ConfigDict(dict(mode=mode))
  c.scaling.samples = 1000  # of the bootstrap
  return c


def _isoflop():
  c = _measured('isoflop')
  # The published fit is of these rows: hyper-parameters tuned for every size, all
  # parameters of matrix products counted, loss on the validation split.
  c.scaling.rows = ml_collections.ConfigDict(
    dict(hparams='tuned', param_count='standard', split='val')
  )
  c.scaling.window = 7  # the widest budgets span a factor of 100 in tokens
  c.scaling.target = 3.8e25
  return c


def _ladder():
  c = _measured('ladder')
  c.scaling.samples = 300
  c.scaling.last = 3  # checkpoints of a run whose mean is its result
  c.scaling.skip = 0.1  # first share of a run that the second step does not see
  c.scaling.hold_out = ('1B', '3B')  # sizes the method is chosen by
  c.scaling.targets = (  # (name, parameters, tokens)
    ('7B', 6_887_575_552, 3_945_065_873_408),
    ('13B', 13_202_396_160, 5_000_080_130_048),
  )
  return c


def _paper():
  c = _study(ladder.Ladder())
  c.model = configs.model_fields(llama.SIZES['8b_april'])
  c.model.remat = 'full'
  c.optim.eps = 1e-5
  c.train.update(dict(save_every=1000, eval_every=5000, z_loss=0.0))
  c.scaling.hold_out = 0
  c.scaling.questions = 0
  return c


def _cpu():
  c = _study(CPU)
  _small(c)
  c.scaling.target = 1.7e13  # ten times the largest budget
  return c


def _mixes():
  budgets = (5e10, 1e11, 2e11, 4e11, 8e11)
  c = _study(dataclasses.replace(CPU, budgets=budgets, points=3))
  _small(c)
  c.scaling.mode = 'mixes'
  c.scaling.candidates = (  # (name, ((source, weight), ...))
    ('code', (('code', 0.9), ('math', 0.1))),
    ('even', (('code', 0.5), ('math', 0.5))),
    ('exercises', (('code', 0.1), ('math', 0.9))),
  )
  # What the large model is to be good at: a benchmark of questions from each source.
  c.scaling.judged = ('code', 'math')
  c.scaling.weights = ()  # of each in the mean that ranks; (): equal
  c.scaling.samples = 300
  # A straight line would have the NLL of exercises, which are easy, fall below that of
  # every mix seen; the law with an offset takes 4 budgets.
  c.scaling.step = 'power'
  c.scaling.target = 4e12  # ten times the largest budget that is fitted
  return c


def _valuation():
  c = _study(CPU)
  _small(c)
  # The new source is part of the default mix: one that the model never saw would only
  # show that it was never seen.
  c.data.mix.update(dict(code=0.8, math=0.1, drill=0.1))
  c.scaling.mode = 'valuation'
  c.scaling.update(
    dict(
      size=1e5,  # parameters without embedding and head; 8B in the paper
      steps=400,  # of the whole pre-training, of which half is done
      done=0.5,
      anneal_tokens=200_000,  # 40B in the paper
      new='math',  # the data set to value
      share=0.3,  # of it in the treatment's mix
      seeds=3,  # orders of the data, for control and treatment
      judged=('code', 'math', 'drill'),  # sources whose held-out loss is compared
      samples=1000,
    )
  )
  return c


def _mixes_known():
  c = _mixes()
  c.scaling.candidates = (
    ('clean', (('code', 1.0),)),
    ('half_drill', (('code', 0.5), ('drill', 0.5))),
  )
  c.scaling.judged = ('code',)
  c.scaling.budgets, c.scaling.hold_out = (2.5e10, 5e10, 1e11, 2e11), 0
  c.scaling.target = 2e12  # ten times the largest budget that is fitted
  return c


def _valuation_known():
  c = _valuation()
  c.data.mix.update(dict(code=0.5, math=0.0, drill=0.5))
  c.scaling.update(dict(new='code', share=0.8, anneal_tokens=600_000))
  c.scaling.judged = ('code',)
  return c


def get_config(mode='paper'):
  configs.choose('scaling', mode, MODES + KNOWN)
  build = dict(paper=_paper, cpu=_cpu, isoflop=_isoflop, ladder=_ladder)
  build |= dict(mixes=_mixes, valuation=_valuation)
  build |= dict(mixes_known=_mixes_known, valuation_known=_valuation_known)
  return build[mode]()


def sweep(mode='paper'):
  """One member a run of the ladder: an array job of experiments/pretrain.

  The runs are the ones that scaling itself would train in the same workdir, so the
  command without --sweep collects them and fits the laws.
  """
  c = get_config(mode)
  if c.scaling.mode != 'live':
    raise UserError(f'--sweep: configs/scaling.py:{mode} has no ladder of runs')
  plan = ladder.create(c.scaling)
  for run in ladder.runs(plan, configs.model_config(c.model)):
    yield ladder.overrides(run, plan)
