"""Who may import whom: the order of CONTRIBUTING.md, kept. Data flows one way, without cycles."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "keras_shared"
ORDER = (  # each imports only what stands before it
    "errors", "text", "terminal", "processes", "quiet", "start", "files", "finite", "lookup",
    "section", "arguments", "eager",
    "signature", "tokenizing", "presets.names", "presets.headline", "serving", "tying", "losses",
    "initializers", "layers", "datasets", "batching", "exporting", "sharing", "signals",
    "presets.reading", "zoo", "gallery", "tasks", "presets", "recipes", "training",
    "evaluation", "comparing", "demo", "cli",
)  # fmt: skip
NEVER = {  # folder: what it may import nowhere, not even inside a function
    "tying": ("tensorflow",),
    "layers": ("tensorflow",),
    "losses": ("tensorflow",),
    "initializers": ("tensorflow",),
    "zoo": ("tensorflow", "keras_shared.datasets", "keras_shared.batching"),
    "serving": ("keras",),
}
LIGHT = (
    "errors",
    "text",
    "files",
    "processes",
    "quiet",
    "lookup",
    "recipes",
    "cli",
    "presets.names",
    "presets.headline",
)
HEAVY = ("keras", "tensorflow", "sklearn", "matplotlib", "rich", "numpy", "pydantic", "scipy")
NAMELESS = ("recipes", "training", "evaluation", "comparing")  # know no model, task or data set
# Who handles errors itself: all else does it through `errors.boundary`, `advised` and `attempt`.
HANDLERS = {
    "errors",
    "cli.command_line",  # the last word of a command
    "files.bounded", "files.pictures", "files.atomic",  # what is read, and what is written
    "text", "quiet", "processes",  # descriptors, signals; processes.py runs alone, without others
    "presets.reading", "presets.publishing", "datasets.tfds_split", "recipes.recipe",
    "serving.client", "serving.over_rest",  # tries again; whatever a peer sends
    "serving.trial_process", "serving.child_process",  # both ends of a trial
    # a request, or a model, does not end the server; one that does not start shows its log
    "serving.engine", "serving.embedded.rest", "serving.embedded.grpc_service",
    "serving.embedded.batching", "serving.embedded.json_requests", "serving.embedded.__main__",
}  # fmt: skip
# Who takes any exception whatever, as an `except` or as an `attempt` that names none.
CATCH_ALL = {
    "errors", "cli.command_line", "files.pictures", "presets.publishing",
    "serving.trial_process", "serving.child_process", "serving.over_rest",
    "serving.embedded.rest", "serving.embedded.grpc_service", "serving.embedded.batching",
    # what a graph, or a model in it, does is not known before
    "serving.trial", "serving.examination", "serving.embedded.models", "serving.engine",
    # code of others: a layer's `call` or `get_config`, a converter, an arm of a comparison
    "exporting.reusable", "exporting.signatures", "exporting.to_litert", "layers.shared_stack",
    "sharing.find_ties", "sharing.report", "signals.activations", "tying.keras_private",
    "comparing.runs",
}  # fmt: skip
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(path, top_only=False):
    """Full names of what a file imports, but for the eyes of a type checker alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in tree.body if top_only else ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, folder):
    return (name + ".").startswith(folder + ".")


def ours(path):
    """The modules of ours that a file imports."""
    for name in imports_of(path):
        if within(name, "keras_shared"):
            inner = name.removeprefix("keras_shared").removeprefix(".")
            while inner and inner not in FILES:  # a function or a class
                inner = inner.rpartition(".")[0]
            yield inner


def place(module):
    """Where a module stands in the order: by its longest prefix there."""
    folders = [folder for folder in ORDER if within(module, folder)]
    return ORDER.index(max(folders, key=len))


def test_every_module_has_its_place():
    assert not [m for m in FILES if m != "__init__" and not any(within(m, f) for f in ORDER)]


@pytest.mark.parametrize("module", sorted(set(FILES) - {"__init__"}))
def test_imports_go_one_way(module):
    wrong = [m for m in ours(FILES[module]) if m and m != "__init__" and place(m) > place(module)]
    assert not wrong


def test_there_is_no_cycle():
    graph = {module: set(ours(path)) - {module, "", "__init__"} for module, path in FILES.items()}
    done, path = set(), []

    def visit(module):
        assert module not in path, [*path[path.index(module) :], module]
        if module in done:
            return
        path.append(module)
        for imported in graph[module]:
            visit(imported)
        done.add(path.pop())

    for module in graph:
        visit(module)


@pytest.mark.parametrize("folder", NEVER)
def test_what_a_folder_never_imports(folder):
    files = [path for module, path in FILES.items() if within(module, folder)]
    assert files
    found = [
        (f.name, n) for f in files for n in imports_of(f) for b in NEVER[folder] if within(n, b)
    ]
    assert not found


def test_the_server_stands_alone():
    allowed = (
        "serving", "errors", "text", "processes", "quiet", "files", "presets.names",
    )  # fmt: skip
    found = {m for n, f in FILES.items() if within(n, "serving") for m in ours(f)}
    assert all(any(within(m, a) for a in allowed) for m in found), found


def test_private_keras_is_in_one_file():
    users = {m for m, path in FILES.items() for n in imports_of(path) if within(n, "keras.src")}
    assert users == {"tying.keras_private"}


LIGHT_FILES = sorted(m for m in FILES if any(within(m, f) for f in LIGHT) and m != "recipes.schema")


@pytest.mark.parametrize("module", LIGHT_FILES)
def test_help_waits_for_nothing(module):
    names = imports_of(FILES[module], top_only=True)
    assert not [n for n in names for heavy in HEAVY if within(n, heavy)]


@pytest.mark.parametrize("folder", NAMELESS)
def test_what_differs_between_tasks_is_asked_of_the_task(folder):
    from keras_shared.datasets import DATASETS
    from keras_shared.tasks import TASKS
    from keras_shared.zoo import MODELS

    names = {*MODELS, *TASKS, *DATASETS}
    for module, path in FILES.items():
        if within(module, folder):
            constants = {n.value for n in ast.walk(ast.parse(path.read_text()))
                         if isinstance(n, ast.Constant) and isinstance(n.value, str)}  # fmt: skip
            assert not constants & names, module
            words = {n.rpartition(".")[2] for n in imports_of(path)}
            assert not words & {*MODELS, *(name.upper() for name in names)}, module


def test_what_the_package_says_it_holds_is_there():
    import keras_shared

    assert sorted(keras_shared._PACKAGES) == sorted({m.split(".")[0] for m in FILES} - {"__init__"})


def handlers(node):
    """What a node catches, as the names of the classes; None if it is no handler."""
    if isinstance(node, ast.ExceptHandler):
        return [ast.unparse(node.type)] if node.type else ["BaseException"]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("suppress", "contextlib.suppress"):
        return [ast.unparse(kind) for kind in node.args]
    return None


def catches_all(node):
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "attempt":
        return len(node.args) == 1
    return bool({"Exception", "BaseException"} & {*(handlers(node) or [])})


def modules_with(kind):
    trees = {name: ast.walk(ast.parse(path.read_text())) for name, path in FILES.items()}
    return {name for name, nodes in trees.items() if any(map(kind, nodes))}


@pytest.mark.slow
def test_errors_are_handled_in_few_places():
    assert modules_with(lambda node: handlers(node) is not None) == HANDLERS
    assert modules_with(catches_all) == CATCH_ALL
