"""Run the parallel steps of builders on several machines, as tasks of a datatrove executor.

    with scale.engine("ray", Path("/shared/work"), tasks=64, workers=16):
        corpus = find_builder("corpus")
        context = BuildContext(Path("/shared/corpus"), workers=16, clone_folder=Path("/shared/clones"))
        corpus.run(corpus.validate({"sources": ["/shared/git/*.git"]}), context)

    align build corpus /shared/git/*.git --out /shared/corpus --engine ray --tasks 64

`local` is datatrove's executor for one machine, and `ray` is datatrove's executor for a Ray cluster. If no Ray cluster
is running, a cluster is started on this machine. Sources, output and the work folder must have the same paths on all
machines, and this package must be installed on every machine. The result has the same bytes as without an executor:
the item with index i belongs to the task with index i modulo `tasks`, and results are read in the order of the items.
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

EngineName = Literal["local", "ray"]
ENGINES: tuple[EngineName, ...] = ("local", "ray")
START_ATTEMPTS = 4
"""Number of attempts to start a Ray cluster on this machine. A start that times out is repeated."""
INSTALL = "distributed builds need datatrove and Ray: pip install 'code-alignment[scale]'"


@dataclass(frozen=True)
class Task:
    """One task of a job (a parallel step of a builder). Reads items and writes their results. Picklable."""

    folder: Path
    """Folder with the files of the job."""

    def __call__(self, _: Any, rank: int, world_size: int) -> None:
        """Run the task with the index `rank`. datatrove calls this method."""
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
    """Runs each call of `parallel.ordered_map` as one job on a datatrove executor.

    The files of a job are deleted after all results have been read.
    """

    name: EngineName
    folder: Path
    """Shared folder for the files of jobs."""
    tasks: int
    """Number of tasks per job."""
    workers: int
    """Number of tasks that run at the same time."""
    jobs: int = field(default=0)
    """Number of jobs that were started."""
    connected: bool = field(default=False)
    """Whether this engine opened the connection to Ray."""

    def map(
        self,
        function: Callable[[Any, Any], Any],
        items: Iterable[Any],
        initial: Callable[[Any], Any],
        argument: Any,
    ) -> Iterator[Any]:
        """Apply a function to items. Arguments and results are the same as for `parallel.ordered_map`.

        Raises:
            RuntimeError: a task failed. The message contains the path of the task's log.
            ValueError: the optional dependencies `scale` are not installed.
        """
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
                f"{len(missing)} of {tasks} tasks failed, the first of them task {missing[0]}; see "
                f"{job}/logs/tasks/{missing[0]:05d}.log"
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
        self.connected = _connect(self.workers) or self.connected
        RayPipelineExecutor([Task(job)], cpus_per_task=1, mem_per_cpu_gb=1, **settings).run()
        deadline = time.monotonic() + 30  # on a network file system, files of other machines become visible late
        while time.monotonic() < deadline and not all((job / f"out-{rank:05d}").is_file() for rank in range(tasks)):
            time.sleep(0.2)


def _connect(workers: int) -> bool:
    """Connect to the running Ray cluster, or start a cluster on this machine.

    Return False if this process was already connected, otherwise True.
    """
    try:
        import ray
    except ImportError:
        raise ValueError(INSTALL) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    if ray.is_initialized():
        return False
    try:
        ray.init(address="auto", log_to_driver=False)
        return True
    except ConnectionError:
        pass
    # Ray 2.60 waits only 30 seconds for the start of its processes, which is too short on a busy machine.
    for attempts_left in reversed(range(START_ATTEMPTS)):
        try:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
            return True
        except Exception as error:
            ray.shutdown()
            if not attempts_left or "timed out" not in str(error):
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextlib.contextmanager
def engine(name: EngineName, folder: Path, *, tasks: int = 16, workers: int = 2) -> Iterator[TaskEngine]:
    """Context manager. The parallel steps of all builders that are called inside of it run on a datatrove executor.

    At the end, a connection to Ray that was opened inside the context is closed, and a cluster that was started on this
    machine is stopped.

    Args:
        name: `local` or `ray`.
        folder: folder for items and results, on a file system that all machines share.
        tasks: number of tasks per step.
        workers: number of tasks that run at the same time.

    Raises:
        ValueError: `name` is unknown, or `tasks` or `workers` is below 1.
    """
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; use one of {', '.join(ENGINES)}")
    if tasks < 1 or workers < 1:
        raise ValueError(f"tasks and workers must be at least 1, not {tasks} and {workers}")
    task_engine = TaskEngine(name, folder.resolve(), tasks, workers)
    previous, parallel.ENGINE = parallel.ENGINE, task_engine.map
    try:
        yield task_engine
    finally:
        parallel.ENGINE = previous
        if task_engine.connected:
            import ray

            ray.shutdown()


def _load_all(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)
            except EOFError:
                return
