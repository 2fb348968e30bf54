"""The models of a server: versions found on disk, loaded, swapped without a gap, unloaded."""

import contextlib
import dataclasses
import gc
import pathlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_shared.errors import KerasSharedError, attempt, whole_reason
from keras_shared.presets.names import number_of
from keras_shared.serving.batching_parameters import OF_A_VERSION, read_batching
from keras_shared.serving.embedded.options import ConfigError, Options
from keras_shared.serving.embedded.refusal import Refused, invalid
from keras_shared.serving.embedded.servable import Servable
from keras_shared.serving.messages import Status
from keras_shared.text import log_line


@dataclasses.dataclass
class _Version:
    state: str
    error: str = ""
    servable: Servable | None = None
    content: object = None  # what the folder held when it failed to load


def say(text: str) -> None:
    """One line of the log."""
    log_line(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {' '.join(text.split())}")


class Models:
    """Loads what its config names, looks for new versions, and gives them to requests.

    A new version answers once it is loaded and warmed up; then the old one finishes what it has.
    A version that is being copied is left alone until its files stay as they are; one that failed
    is tried again when its files change.

    Args:
        options: batching, the wait between two looks, and what graphs may touch.
    """

    def __init__(self, options: Options) -> None:
        file = options.batching_parameters_file
        self._batching = read_batching(file) if file else None
        self._options = options
        most = self._batching.num_batch_threads if self._batching else 1
        self._slots = threading.Semaphore(most)
        self._changed = threading.Condition()
        self._configs: dict[str, Any] = {}
        self._labels: dict[str, Mapping[str, int]] = {}  # of each model
        self._looked: set[str] = set()  # the models whose folders were read to the end once
        self._versions: dict[str, dict[int, _Version]] = {}
        self._closing = threading.Event()

    def configure(self, configs: Sequence[Any], seconds: float = 600.0) -> None:
        """Serve these models and no others; returns when each has a version.

        Args:
            configs: the ModelConfigs of TF Serving's model config.
            seconds: until then.

        Raises:
            ConfigError: for a config that cannot be, or whose models do not load.
        """
        names = [config.name for config in configs]
        for config in configs:
            if names.count(config.name) > 1 or not config.name:
                raise ConfigError(f"Every model has a name of its own. Received: {names}")
            if not pathlib.PurePath(config.base_path).is_absolute():
                raise ConfigError(
                    f"Expected an absolute path. Received: base_path {config.base_path!r} of the "
                    f"model {config.name!r}"
                )
        with self._changed:
            new = [config for config in configs if self._configs.get(config.name) != config]
            kept = {name: self._configs[name] for name in {*names} - {c.name for c in new}}
            self._configs = kept | {config.name: config for config in new}
            self._looked &= kept.keys()
            for config in new:
                self._versions.setdefault(config.name, {})
                # a thread for each: a model that loads for long holds up no other
                threading.Thread(target=self._watch, args=(config,), daemon=True).start()
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for config in configs:
            self._await(config, deadline)
        for config in configs:
            for label, number in config.version_labels.items():
                if number not in self._available(config.name):
                    raise ConfigError(
                        f"The label {label!r} of {config.name} names version {number}, which is "
                        f"not available. Available: {sorted(self._available(config.name))}"
                    )
        with self._changed:
            if self._configs == {config.name: config for config in configs}:  # not replaced since
                self._labels = {config.name: dict(config.version_labels) for config in configs}

    @contextlib.contextmanager
    def use(self, name: str, version: int | None = None, label: str = "") -> Iterator[Servable]:
        """A version for a request, which does not end before it: the newest by default.

        Raises:
            Refused: if there is none.
        """
        with contextlib.ExitStack() as stack:
            with self._changed:
                found = self._available(name)
                if label:
                    version = self._labels.get(name, {}).get(label)
                    if version is None:
                        raise invalid(f"Unrecognized servable version label: {label}")
                number = max(found, default=-1) if version is None else version
                if number not in found:
                    asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                    raise Refused("NOT_FOUND", f"Servable not found for request: {asked}")
                servable = stack.enter_context(found[number])
            yield servable

    def states(self, name: str, version: int | None = None) -> list[Status]:
        """The versions of a model, the newest first; those that failed or ended too.

        Raises:
            Refused: if there are none.
        """
        with self._changed:
            found = [
                Status(number, one.state, one.error)
                for number, one in sorted(self._versions.get(name, {}).items(), reverse=True)
                if version in (None, number)
            ]
        if not found and version is not None:
            raise Refused("NOT_FOUND", f"Could not find version {version} of model {name}")
        if not found:
            raise Refused("NOT_FOUND", f"Could not find any versions of model {name}")
        return found

    def names(self) -> list[str]:
        return sorted(self._configs)

    def ready(self) -> bool:
        """Whether each model has a version that answers."""
        with self._changed:
            return all(self._available(name) for name in self._configs)

    def close(self) -> None:
        """End every version, as soon as its requests have ended."""
        self._closing.set()
        with self._changed:
            self._configs = {}
            self._changed.notify_all()
            for name in self._versions:
                self._unload(name, [*self._available(name)])

    def _available(self, name: str) -> dict[int, Servable]:
        return {
            number: version.servable
            for number, version in self._versions.get(name, {}).items()
            if version.state == "AVAILABLE" and version.servable is not None
        }

    def _await(self, config: Any, deadline: float) -> None:
        name = config.name
        with self._changed:
            while not (self._available(name) and name in self._looked):
                failed = [v.error for v in self._versions[name].values() if v.error]
                if failed and name in self._looked:
                    raise ConfigError(f"{name} could not be loaded: {failed[-1]}")
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise ConfigError(f"{name} was not loaded in time: {config.base_path}")

    def _watch(self, config: Any) -> None:
        """Look at the folder of a model as long as its config holds."""
        name, said, seen = config.name, "", dict[int, object]()
        while self._holds(config):
            changed, error = attempt(lambda: self._look(config, seen))
            # where the folder cannot be read now, what is loaded stays
            now = whole_reason(error) if error else ""
            if not error and not self._available(name) and not self._versions[name]:
                now = f"{config.base_path} holds no version that is asked for: waiting for one"
            if changed:
                # what stays is left out of each collection of garbage, which JSON causes many of:
                # else they take longer than the requests
                gc.unfreeze()
                gc.collect()
                gc.freeze()
            with self._changed:
                if self._holds(config) and not error:
                    self._looked.add(name)
                self._changed.notify_all()
            if now != said:
                say(f"{name}: {now or 'its folder can be read again, and holds versions'}")
                said = now
            self._closing.wait(self._options.file_system_poll_wait_seconds)
        with self._changed:
            if name not in self._configs:
                self._unload(name, [*self._available(name)])

    def _holds(self, config: Any) -> bool:
        return self._configs.get(config.name) is config

    def _look(self, config: Any, seen: dict[int, object]) -> bool:
        """Load and unload as the folder and the policy say; whether anything was."""
        before = [*self._available(config.name)]
        name, versions = config.name, self._versions[config.name]
        wanted = _wanted(config)
        for number, folder in sorted(wanted.items(), reverse=True):
            version = versions.get(number)
            if version is not None and version.state == "AVAILABLE":
                continue
            content = _content(folder)
            if version is not None and version.error and version.content == content:
                continue
            # at the start there is nothing to wait for, and a server that waits answers nobody
            first = name not in self._looked or not self._available(name)
            settled = first or seen.get(number) == content
            seen[number] = content
            if settled:
                self._load(name, number, folder, content)
        with self._changed:
            if not wanted or wanted.keys() & self._available(name).keys():
                self._unload(name, [n for n in self._available(name) if n not in wanted])
            return before != [*self._available(name)]

    def _load(self, name: str, number: int, folder: pathlib.Path, content: object) -> None:
        self._enter(name, number, _Version("LOADING"))
        begun = time.monotonic()
        servable, error = attempt(lambda: self._loaded(name, number, folder))
        if error:
            reason = str(error) if isinstance(error, KerasSharedError) else whole_reason(error)
            say(f"{name} {number}: could not be loaded: {reason}")
            self._enter(name, number, _Version("END", reason, content=content))
            return
        say(f"{name} {number}: loaded in {time.monotonic() - begun:.1f} s")
        self._enter(name, number, _Version("AVAILABLE", servable=servable))

    def _loaded(self, name: str, number: int, folder: pathlib.Path) -> Servable:
        batching, own = self._batching, folder / OF_A_VERSION
        if batching and self._options.enable_per_model_batching_parameters:
            batching = read_batching(own) if own.exists() else None
        trusted = self._options.allow_file_operations
        return Servable(name, number, folder, batching, self._slots, trusted)

    def _enter(self, name: str, number: int, version: _Version) -> None:
        with self._changed:
            self._versions[name][number] = version
            self._changed.notify_all()

    def _unload(self, name: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            servable = self._versions[name][number].servable
            self._versions[name][number] = _Version("END")
            if servable is not None:
                servable.end()
            say(f"{name} {number}: unloaded")


def _wanted(config: Any) -> Mapping[int, pathlib.Path]:
    """The versions that a policy asks for, of those on disk: number -> folder."""
    found: dict[int, pathlib.Path] = {}
    for path in sorted(pathlib.Path(config.base_path).iterdir()):
        number = number_of(path.name)
        if number is not None and path.is_dir():
            found[number] = path  # of several names of one number the largest counts
    policy = config.model_version_policy
    if policy.HasField("specific"):
        return {n: path for n, path in found.items() if n in policy.specific.versions}
    newest = sorted(found, reverse=True)
    if not policy.HasField("all"):
        newest = newest[: policy.latest.num_versions or 1]
    return {number: found[number] for number in newest}


def _content(folder: pathlib.Path) -> object:
    """What tells one state of a folder from another."""
    found = []
    for path in sorted(folder.rglob("*")):
        entry, removed = attempt(path.stat, OSError)
        if not removed:
            found.append((str(path), entry.st_size, entry.st_mtime_ns))
    return found
