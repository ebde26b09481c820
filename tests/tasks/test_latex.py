"""Answers in LaTeX: found in a text, and equal where a published normaliser says so."""

import json
import pathlib

import pytest

from llama3_jax.tasks import latex

# (one, other, whether the normaliser of MATH's authors, as lm-eval 0.4 has it, takes
# them as equal): the pairs are ours, the verdicts were computed with it.
CASES = json.loads((pathlib.Path(__file__).parent / 'goldens/latex.json').read_text())


def test_what_the_published_normaliser_takes_as_equal_is_equal():
  apart = [(a, b) for a, b, theirs in CASES if theirs and not latex.same(a, b)]
  assert not apart and sum(theirs for *_, theirs in CASES) >= 30


def test_what_is_equal_here_alone_is_the_same_value_or_layout():
  """Decimals, thousands, signs in a fraction, units and words without \\text."""
  more = {(a, b) for a, b, theirs in CASES if not theirs and latex.same(a, b)}
  assert more == {
    ('12', '12.'),
    (r'2\sqrt{2}', r'2 \sqrt 2'),
    ('x^2+1', 'x^{2}+1'),
    ('0.25', r'\frac14'),
    (r'\frac{-1}{2}', r'-\frac{1}{2}'),
    (r'\frac24', r'\frac12'),
    ('1,000', '1000'),
    ('1{,}000', '1000'),
    ('18.90', '18.9'),
    (r'\text{Anna}', 'Anna'),
    (r'x \le 3', r'x \leq 3'),
    (r'x \in [0,1]', '[0,1]'),
    ('f(x) = 2x', '2x'),
    ('5 cm', '5'),
    (r'\mathrm{A}', 'A'),
    ('4.0', '4'),
    (r'5\,\text{cm}^2', '5'),
    (r'\$1\,000', '1000'),
    (r'\text{(B)}', '(B)'),
  }


@pytest.mark.parametrize(
  'text,answer',
  [
    (r'so $\boxed{\frac{1}{2}}$.', r'\frac{1}{2}'),
    (r'\boxed{1} and \boxed{{2}}', '{2}'),
    (r'it is $\boxed 7$', '7'),
    (r'\fbox{3}', '3'),
    (r'\boxed{4} then \boxed{5', '4'),  # the last one that is closed
    ('The final answer is $x^2$. I hope', 'x^2'),
    ('The answer is 12.\nNext', '12'),
    ('First $a$, then $b$ holds', 'b'),
    ('one\n42', '42'),
    ('', ''),
  ],
)
def test_answer_is_where_a_solution_ends(text, answer):
  assert latex.answer(text) == answer


@pytest.mark.parametrize(
  'text', ['9' * 9000, r'\frac{' + '9' * 9000 + '}{3}', '\\boxed{' * 200, '$' * 999]
)
def test_what_a_model_may_write_is_no_error(text):
  assert latex.same(latex.answer(text), '7') is False
