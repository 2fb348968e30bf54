"""Stands for `tensorflow_model_server`: a process with ports, a log and signals, without a model.

FAKE says how it fails; METADATA names a file with what it answers for metadata.
"""

import http.server
import os
import pathlib
import re
import signal
import sys
import time


def main():
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in sys.argv[1:])
    fault = os.environ.get("FAKE", "")
    config = pathlib.Path(flags["model_config_file"]).read_text()
    names = re.findall(r'name: "([^"]+)"', config)
    for flag in ("batching_parameters_file", "monitoring_config_file"):
        assert pathlib.Path(flags[flag]).read_text()
    print(f"Building single TensorFlow model file config: {names}", file=sys.stderr, flush=True)
    if fault == "dies":
        print("Failed to start server. Error: bad base path", file=sys.stderr, flush=True)
        sys.exit(255)

    if fault == "talks":
        for _ in range(100):
            sys.stderr.write("x" * 1_000_000)
        sys.stderr.flush()
        sys.stderr.buffer.write("\n\x1b[31mred\u202e\n".encode() + b"\xff\n")
        sys.stderr.buffer.flush()

    def end(number, _):
        print(f"ended by signal {number}", file=sys.stderr, flush=True)
        if fault == "status 7":
            os._exit(7)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if fault == "stubborn" else end)
    time.sleep(30 if fault == "hangs" else 0.3)  # the ports open when the models are loaded

    version = (
        '{"version": "1", "state": "%s", "status": {"error_code": "%s", "error_message": "%s"}}'
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.endswith("/metadata"):
                body = pathlib.Path(os.environ["METADATA"]).read_text()
            else:
                state = ("END", "NOT_FOUND", "no variables") if fault == "fails" else None
                body = version % (state or ("AVAILABLE", "OK", ""))
                body = f'{{"model_version_status": [{body}]}}'
            known = self.path.split("/")[3] in names
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(
        ("127.0.0.1", int(flags["rest_api_port"])), Handler
    ).serve_forever()


if __name__ == "__main__":
    main()
