"""The jobs, and the only folder that imports Ray. Ray and OpenMP read their environment once, so it is set here."""

import os

ENVIRONMENT = {
    # Ray would start each worker of a driver started by `uv run` through uv, in an environment that it builds anew.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Ray's C++ side reports, as an error on the driver's terminal, that Ray Data passes its transforms to
    # actors through the object store. Ray's own Python exceptions tell what goes wrong.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # Threads of torch that wait for each other would spin: beside Ray's processes that took four times the CPU time.
    "OMP_WAIT_POLICY": "PASSIVE",
    # A local Ray with fewer CPUs than processes ends one that idles for a second, and the writer idles between
    # shards. Starting it anew took seconds of CPU for every few shards, which were published late and in bursts.
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",
    # On a busy machine a node's agent, a Python process, takes longer to answer than the 30 s that the node waits.
    "RAY_agent_register_timeout_ms": "300000",
    # What a driver asked Ray Data's coordinator for is kept so long after it was killed, and lessens what the next one
    # may use. A driver at work asks anew every 10 s.
    "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "40",
    # Shards that are labelled and wait for a slow store are lost with the driver, and the object store has room for
    # thousands: Ray Data shall hold the stage before the writers back at once (`Job.waiting`), not at half of it.
    "RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD": "0",
    # Ray's own lines, on the driver's terminal and in the logs of a submitted job, would be coloured for any reader.
    "RAY_COLOR_PREFIX": "0",
    # Ray Data would gather figures about its use, in a process of its own.
    "RAY_DATA_USAGE_DISABLED": "1",
    # One process less to start on a laptop. A preempted node is still told from a failure, when its workers are gone.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray Train would change a worker's directory, and relative paths of the config would point elsewhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
ABSENT = ENVIRONMENT.keys() - os.environ.keys()
"""Those that the process has not set itself."""


def set_environment() -> None:
    """For Ray, before it is imported and wherever it is started: what the process has not set itself."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


set_environment()
