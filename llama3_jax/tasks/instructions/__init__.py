"""Instructions that a program can check, such as 'no commas' (IFEval; 5.2)."""
