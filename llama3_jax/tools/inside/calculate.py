"""Answers questions of mathematics: arithmetic, algebra, calculus, units (4.3.5)."""

import re

import sympy
from sympy.parsing import sympy_parser
from sympy.physics import units

RULES = (
  *sympy_parser.standard_transformations,
  sympy_parser.implicit_multiplication_application,
  sympy_parser.convert_xor,
)
NAMES = {
  'e': sympy.E,
  'i': sympy.I,
  'pi': sympy.pi,
  'infinity': sympy.oo,
  'ln': sympy.log,
  'arcsin': sympy.asin,
  'arccos': sympy.acos,
  'arctan': sympy.atan,
}
# Names of units that the library has under another one, or not at all.
UNITS = {
  'm': units.meter,
  'meters': units.meter,
  'metres': units.meter,
  'cm': units.centimeter,
  'mm': units.millimeter,
  'km': units.kilometer,
  'miles': units.mile,
  'ft': units.foot,
  'feet': units.foot,
  'inches': units.inch,
  'yards': units.yard,
  'kg': units.kilogram,
  'g': units.gram,
  'grams': units.gram,
  'lb': units.pound,
  'lbs': units.pound,
  'pounds': units.pound,
  'oz': units.pound / 16,
  'ounces': units.pound / 16,
  's': units.second,
  'seconds': units.second,
  'min': units.minute,
  'minutes': units.minute,
  'h': units.hour,
  'hours': units.hour,
  'days': units.day,
  'weeks': 7 * units.day,
  'years': units.year,
  'l': units.liter,
  'liters': units.liter,
  'litres': units.liter,
  'ml': units.milliliter,
  'gallons': sympy.Rational('3.785411784') * units.liter,
  'mph': units.mile / units.hour,
  'kmh': units.kilometer / units.hour,
  'joules': units.joule,
  'kcal': 4184 * units.joule,
  'kwh': 3600000 * units.joule,
  'watts': units.watt,
  'newtons': units.newton,
  'degrees': units.degree,
  'radians': units.radian,
}
WORDS = re.compile(r'^(?:what is|calculate|compute|evaluate|find)\s+(?:the\s+)?', re.I)
DIGITS = 12


def answer(query: str) -> str:
  """The answer to a question, exact and as a decimal where they differ."""
  text = WORDS.sub('', ' '.join(query.split()).rstrip('?. '))
  for pattern, solve in FORMS:
    match = re.fullmatch(pattern, text, re.I)
    if match:
      return shown(solve(*match.groups()))
  if '=' in text:
    return shown(_solve(text, None))
  return shown(_value(sympy.simplify(expression(text))))


def expression(text: str) -> sympy.Basic:
  """What a text of mathematics says; this runs it, so only ever in the sandbox."""
  text = text.replace('×', '*').replace('·', '*').replace('÷', '/').replace('−', '-')
  text = re.sub(r'(\d),(?=\d{3}\b)', r'\1', text.replace('√', 'sqrt'))
  text = re.sub(r'(\d+(?:\.\d+)?)\s*%\s*of\b', r'(\1/100)*', text)
  text = re.sub(r'(\d+(?:\.\d+)?)\s*%(?!\s*[\w(])', r'(\1/100)', text)
  return sympy_parser.parse_expr(text, dict(NAMES), RULES)


def shown(value: object) -> str:
  """A value as a text."""
  if isinstance(value, (list, tuple)):
    return ' or '.join(map(shown, value)) if value else 'there is none'
  if isinstance(value, dict):
    return ', '.join(f'{k} = {shown(v)}' for k, v in value.items())
  exact = str(value).replace('**', '^')
  if not isinstance(value, sympy.Expr) or not value.is_number or value.is_Integer:
    return exact
  near = sympy.N(value, DIGITS)
  if not (near.is_number and near.is_finite):
    return str(near)
  return _decimal(value) if value.is_Float else f'{exact} (about {_decimal(value)})'


def _decimal(value):
  """A number to 12 digits, without zeros at its end."""
  near = sympy.N(value, DIGITS)
  return f'{float(near):.{DIGITS}g}' if near.is_real and abs(near) < 1e15 else str(near)


def _value(value):
  return value.doit() if hasattr(value, 'doit') else value


def _symbol(name, *values):
  if name:
    return sympy.Symbol(name)
  free = sorted({s for v in values for s in v.free_symbols}, key=str)
  known = [s for s in free if str(s) in ('x', 't', 'n', 'y')]
  if not free:
    raise ValueError('there is no unknown in it')
  return (known or free)[0]


def _equation(text):
  left, mark, right = text.partition('=')
  if not mark:
    return expression(left)
  return sympy.Eq(expression(left.rstrip('=')), expression(right.lstrip('=')))


def _solve(text, name):
  parts = [p for p in re.split(r',(?!\d{3}\b)|;|\band\b', text) if p.strip()]
  equations = [_equation(part) for part in parts]
  if any(one in (sympy.true, sympy.false) for one in equations):
    return str(all(one is not sympy.false for one in equations)).lower()
  if len(equations) > 1:
    return sympy.solve(equations, dict=True)
  symbol = _symbol(name, *equations)
  found = sympy.solve(equations[0], symbol)
  return [{symbol: one} for one in found]


def _integral(text, variable, low, high):
  value = expression(text)
  symbol = _symbol(variable, value) if value.free_symbols else sympy.Symbol('x')
  if low is None:
    return sympy.integrate(value, symbol)
  return sympy.integrate(value, (symbol, expression(low), expression(high)))


def _derivative(text, variable):
  value = expression(text)
  return sympy.simplify(sympy.diff(value, _symbol(variable, value)))


def _limit(text, variable, place):
  return sympy.limit(expression(text), sympy.Symbol(variable), expression(place))


def _sum(text, variable, low, high):
  bounds = (sympy.Symbol(variable), expression(low), expression(high))
  return sympy.summation(expression(text), bounds)


def _primes(text):
  found = sympy.factorint(int(expression(text)))
  return ' * '.join(f'{p}^{n}' if n > 1 else str(p) for p, n in found.items()) or '1'


def _converted(amount, source, target):
  pair = (source.lower(), target.lower())
  scales = {'c': 'celsius', 'f': 'fahrenheit', 'k': 'kelvin'}
  ends = [scales.get(re.sub(r'^(?:degrees?|°)\s*', '', x), '') or x for x in pair]
  if all(end in scales.values() for end in ends):
    return _temperature(expression(amount), *ends)
  value = units.convert_to(expression(amount) * _unit(source), _unit(target))
  number = sympy.simplify(value / _unit(target))
  if not number.is_number:
    raise ValueError(f'{source} cannot be converted to {target}')
  return f'{_decimal(number)} {target}'


def _temperature(value, source, target):
  zero = {'celsius': sympy.Rational('273.15'), 'kelvin': 0}
  ninth = sympy.Rational(5, 9)
  if source == 'fahrenheit':
    kelvin = (value + sympy.Rational('459.67')) * ninth
  else:
    kelvin = value + zero[source]
  if target == 'fahrenheit':
    found = kelvin / ninth - sympy.Rational('459.67')
  else:
    found = kelvin - zero[target]
  return f'{_decimal(found)} {target}'


def _unit(text):
  name = text.strip().lower()
  for one in (name, name.rstrip('s')):
    if one in UNITS:
      return UNITS[one]
    if isinstance(getattr(units, one, None), units.Quantity):
      return getattr(units, one)
  raise ValueError(f'the unit {text} is not known')


BOUNDS = r'(?:\s+from\s+(.+?)\s+to\s+(.+))?'
BY = r'(?:\s+(?:with respect to|for|by|over)\s+(\w+))?'
SPAN, UNIT = r'(.+?)\s*(?:to|\.\.)\s*(.+)', r'([°a-z ]+?)'
FORMS = (
  (rf'solve\s+(.+?){BY}', _solve),
  (rf'(?:integrate|integral of)\s+(.+?)(?:\s*\bd(\w))?{BOUNDS}', _integral),
  (rf'(?:differentiate|derivative of)\s+(.+?){BY}', _derivative),
  (r'd/d(\w)\s+(.+)', lambda variable, text: _derivative(text, variable)),
  (r'limit(?: of)?\s+(.+?)\s+as\s+(\w+)\s*(?:->|→|to|approaches)\s*(.+)', _limit),
  (rf'sum(?: of)?\s+(.+?)\s+for\s+(\w+)\s*(?:from|=)\s*{SPAN}', _sum),
  (r'(?:prime factors of|factori[sz]e|factor)\s+(\d[\d,]*)', _primes),
  (r'factor(?:i[sz]e)?\s+(.+)', lambda text: sympy.factor(expression(text))),
  (r'expand\s+(.+)', lambda text: sympy.expand(expression(text))),
  (r'simplify\s+(.+)', lambda text: sympy.simplify(expression(text))),
  (rf'(?:convert\s+)?([\d.,/]+)\s*{UNIT}\s+(?:to|in|into)\s+{UNIT}', _converted),
)
