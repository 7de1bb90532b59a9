"""Runs modules one after the other in one process, as ``python -m`` would: most of their time would go into imports."""

import json
import runpy
import sys

if __name__ == "__main__":
    for module, *arguments in json.loads(sys.argv[1]):
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        except SystemExit as ended:
            if ended.code:
                raise
