"""A frozen comparison of methods on a task, tuned alike, to JSON lines that are kept and resumed."""
