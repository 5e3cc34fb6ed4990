"""What the workers of `benchmarks.compare` share: one-line JSON requests on stdin, one-line JSON answers on a pipe."""

import json
import sys
import time


def serve(worker):
    """Answer requests until stdin ends; the pipe's descriptor is the command line's only argument.

    A request's "do" names a method of worker, the rest are its arguments. A worker that fails ends with its traceback,
    and who asked sees the answers end. Every answer says how much CPU time it took, "cpu".
    """
    with open(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            request = json.loads(line)
            start = time.process_time()
            answer = getattr(worker, request.pop("do"))(**request)
            print(json.dumps({**answer, "cpu": time.process_time() - start}), file=answers, flush=True)
