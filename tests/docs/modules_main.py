"""Runs modules and files one after the other in one process, as ``python`` would: most of their time is imports."""

import json
import runpy
import sys

if __name__ == "__main__":
    for module, *arguments in json.loads(sys.argv[1]):
        sys.argv = [module, *arguments]
        try:
            if module.endswith(".py"):
                runpy.run_path(module, run_name="__main__")
            else:
                runpy.run_module(module, run_name="__main__", alter_sys=False)
        except SystemExit as ended:
            if ended.code:
                raise
