"""A greeting, the arguments, one environment variable; then an exit code that tells failure."""

import os
import sys

import wit_world.exports
from componentize_py_types import Err


class Run(wit_world.exports.Run):
    def run(self) -> None:
        print("hello from Python")
        for argument in sys.argv[1:]:
            print("arg", argument)
        print(f"COLOUR={os.environ.get('COLOUR', 'none')}", flush=True)
        raise Err(None)
