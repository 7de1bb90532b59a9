"""Runs several examples one after the other in the same processes: most of their time would go into imports."""

import importlib
import sys

if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    sys.path.insert(0, "examples")
    for name in names:
        arguments = (folder,) if name == "local_steps" else ()
        importlib.import_module(name).main(*arguments)
