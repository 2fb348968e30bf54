import argparse

NAME = "check"
HELP = "say what TF Serving would do with a SavedModel"
EXAMPLE = "check my/export"
LIGHT = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from keras_shared.serving.limits import SECONDS

    parser.add_argument("path", metavar="NAME|PATH", help="of one version, of versions, or other")
    parser.add_argument("--static", action="store_true", help="read alone, run nothing")
    parser.add_argument(
        "--trusted",
        action="store_true",
        help="run it even if its graph touches files, the network or Python",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=SECONDS,
        metavar="SECONDS",
        help="that reading and running it may take (default: %(default)g)",
    )


def run(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from keras_shared.errors import printable
    from keras_shared.serving import check

    findings = check(
        options.path, static=options.static, trusted=options.trusted, timeout=options.timeout
    )
    table = Table("severity", "what", "remedy")
    for finding in findings:
        table.add_row(*map(Text, finding))
    Console().print(table)
    failed = any(finding.severity == "error" for finding in findings)
    verdict = "would fail" if failed else "serves it"
    print(f"{printable(options.path)}: TF Serving {verdict}")
    return int(failed)
