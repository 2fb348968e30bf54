import argparse

NAME = "check"
HELP = "say what TF Serving would do with a SavedModel"
EXAMPLE = "check my/export"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="NAME|PATH", help="of one version, of versions, or other")


def run(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from keras_shared.serving import check

    findings = check(options.path)
    table = Table("severity", "what", "remedy")
    for finding in findings:
        table.add_row(*map(escape, finding))
    Console().print(table)
    failed = any(finding.severity == "error" for finding in findings)
    print(f"{options.path}: TF Serving {'would fail' if failed else 'serves it'}")
    return int(failed)
