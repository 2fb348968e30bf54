import argparse

from keras_shared.cli.options import within

NAME = "check"
HELP = "say what TF Serving would do with a SavedModel"
EXAMPLE = "check my/export"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="NAME|PATH", help="of one version, of versions, or other")
    parser.add_argument("--static", action="store_true", help="read alone, run nothing")
    parser.add_argument(
        "--trusted", action="store_true",
        help="run it even if its graph touches files, the network or Python",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=within(0.1, 1e6), metavar="SECONDS",
        help="that reading and running it may take (default: 120)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    from keras_shared.serving import check
    from keras_shared.serving.finding import NOT_RUN
    from keras_shared.serving.limits import SECONDS
    from keras_shared.terminal import TextTable, console, say

    timeout = SECONDS if options.timeout is None else options.timeout
    findings = check(options.path, static=options.static, trusted=options.trusted, timeout=timeout)
    table = TextTable("severity", "what", "remedy")
    for finding in findings:
        table.add_row(*finding)
    console().print(table)
    failed = any(finding.severity == "error" for finding in findings)
    if failed:
        verdict = "TF Serving would fail"
    elif options.static or any(NOT_RUN in finding.what for finding in findings):
        verdict = f"no error was found; it {NOT_RUN}"
    elif any(finding.untried for finding in findings):
        verdict = "no error was found; not all of it was run"
    else:
        verdict = "TF Serving serves it"
    say(f"{options.path}: {verdict}")
    return int(failed)
