"""Names of tasks and queues. Light: the API imports this to wake workers, without the tasks themselves."""

from mistudio_server.services.ports import JobKind

RUN_NEXT = "mistudio.jobs.run_next"
PING = "mistudio.maintenance.ping"
REAP_RUNS = "mistudio.maintenance.reap_runs"
PREMAKE_PARTITIONS = "mistudio.maintenance.premake_partitions"

TRAINING: JobKind = "training"
EXTRACTION: JobKind = "extraction"
MAINTENANCE = "maintenance"

JOB_KINDS: tuple[JobKind, ...] = (TRAINING, EXTRACTION)
#: What a worker consumes unless it is told otherwise.
QUEUES: tuple[str, ...] = (TRAINING, EXTRACTION, MAINTENANCE)

#: Where a task goes when its sender names no queue. ``run_next`` is sent to the queue of its kind.
ROUTES = {
    RUN_NEXT: {"queue": TRAINING},
    PING: {"queue": MAINTENANCE},
    REAP_RUNS: {"queue": MAINTENANCE},
    PREMAKE_PARTITIONS: {"queue": MAINTENANCE},
}

#: Message header that carries the id of the request that caused a task.
REQUEST_ID_HEADER = "mistudio_request_id"
