"""The same builders on more than one machine: their parallel steps run as tasks of a datatrove executor.

    with scale.engine("ray", Path("/shared/work"), tasks=64, workers=16):
        build_corpus(["/shared/git/*.git"], Path("/shared/corpus"), clone_dir=Path("/shared/clones"))

    align build corpus /shared/git/*.git --out /shared/corpus --engine ray --tasks 64

`local` is datatrove's executor for one machine, `ray` its executor for a Ray cluster (one is started on this machine where
none runs). Sources, output and the work folder must lie where all machines see them under the same path, and all must
have this package. Order, and so every byte of the result, is that of a run without an engine: item number i is in task
i modulo `tasks`, and results are read back in turn.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_builders.storage import parallel

Name = Literal["local", "ray"]
NAMES: tuple[Name, ...] = ("local", "ray")
STARTS = 4
"""How often a cluster on this machine is started that does not come up in time."""
INSTALL = "this needs datatrove and Ray: pip install 'code-alignment[scale]'"


@dataclass(frozen=True)
class Task:
    """One task of a job: reads its items, writes their results. Picklable; called by datatrove with its rank."""

    folder: Path

    def __call__(self, _: Any, rank: int, world_size: int) -> None:
        with (self.folder / "job.pickle").open("rb") as file:
            function, initial, argument = pickle.load(file)
        state = initial(argument)
        target = self.folder / f"out-{rank:05d}"
        partial = target.with_suffix(".partial")
        with partial.open("wb") as file:
            for item in _load_all(self.folder / f"in-{rank:05d}"):
                pickle.dump(function(state, item), file)
        partial.replace(target)


@dataclass
class TaskEngine:
    """Runs `ordered_map` as jobs below `folder`; each job's files go when its results have been read."""

    name: Name
    folder: Path
    tasks: int
    workers: int
    jobs: int = field(default=0)

    def map(
        self,
        function: Callable[[Any, Any], Any],
        items: Iterable[Any],
        initial: Callable[[Any], Any],
        argument: Any,
    ) -> Iterator[Any]:
        """What `parallel.ordered_map` gives."""
        self.jobs += 1
        job = self.folder / f"job-{self.jobs:03d}"
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir(parents=True)
        (job / "job.pickle").write_bytes(pickle.dumps((function, initial, argument)))
        count = self._write(job, items)
        tasks = min(self.tasks, count)
        if not tasks:
            return
        self._run(job, tasks)
        missing = [rank for rank in range(tasks) if not (job / f"out-{rank:05d}").is_file()]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {tasks} tasks failed, the first is {missing[0]}: its log is {job}/logs/tasks/"
                f"{missing[0]:05d}.log"
            )
        results = [_load_all(job / f"out-{rank:05d}") for rank in range(tasks)]
        for number in range(count):
            yield next(results[number % tasks])
        shutil.rmtree(job, ignore_errors=True)

    def _write(self, job: Path, items: Iterable[Any]) -> int:
        count = 0
        with contextlib.ExitStack() as stack:
            files: list[Any] = []
            for count, item in enumerate(items, 1):
                if len(files) < self.tasks:
                    files.append(stack.enter_context((job / f"in-{len(files):05d}").open("wb")))
                pickle.dump(item, files[(count - 1) % self.tasks])
        return count

    def _run(self, job: Path, tasks: int) -> None:
        try:
            from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor
        except ImportError:
            raise ValueError(INSTALL) from None
        settings = {"tasks": tasks, "workers": min(self.workers, tasks), "logging_dir": str(job / "logs")}
        if self.name == "local":
            LocalPipelineExecutor([Task(job)], start_method="spawn", **settings).run()
            return
        _connect(self.workers)
        RayPipelineExecutor([Task(job)], cpus_per_task=1, mem_per_cpu_gb=1, **settings).run()
        deadline = time.monotonic() + 30  # a network file system shows files late
        while time.monotonic() < deadline and not all((job / f"out-{rank:05d}").is_file() for rank in range(tasks)):
            time.sleep(0.2)


def _connect(workers: int) -> None:
    """The Ray cluster that runs, or one on this machine."""
    try:
        import ray
    except ImportError:
        raise ValueError(INSTALL) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine unless asked
    if ray.is_initialized():
        return
    try:
        ray.init(address="auto", log_to_driver=False)
        return
    except ConnectionError:
        pass
    # Ray 2.60 gives its own processes 30 seconds to start, which a busy machine takes longer for.
    for left in reversed(range(STARTS)):
        try:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
            return
        except Exception as error:
            ray.shutdown()
            if not left or "timed out" not in str(error):
                raise


@contextlib.contextmanager
def engine(name: Name, folder: Path, *, tasks: int = 16, workers: int = 2) -> Iterator[TaskEngine]:
    """Run all parallel steps of the builders that are called inside on this engine.

    Args:
        name: `local` or `ray`.
        folder: where items and results lie meanwhile; all machines must see it.
        tasks: into how many pieces a step is cut.
        workers: how many of them run at once.
    """
    if name not in NAMES:
        raise ValueError(f"there is no engine {name!r}: {', '.join(NAMES)}")
    if tasks < 1 or workers < 1:
        raise ValueError(f"tasks and workers must be at least 1, not {tasks} and {workers}")
    made = TaskEngine(name, folder.resolve(), tasks, workers)
    before, parallel.ENGINE = parallel.ENGINE, made.map
    try:
        yield made
    finally:
        parallel.ENGINE = before


def _load_all(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return
