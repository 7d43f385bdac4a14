"""The Celery application: what it is configured to, for senders, workers and beat alike."""

from typing import Any

from celery import Celery
from celery.signals import setup_logging
from kombu.entity import Queue

from mistudio_server.settings import Settings
from mistudio_server.workers.names import QUEUES, ROUTES

_NOT_A_QUEUE = "mistudio-unrouted"
_RESULT_SECONDS = 600
_CONNECT_SECONDS = 2.0
#: Longer than the second that a consumer's BRPOP blocks.
_ANSWER_SECONDS = 10.0


def create_celery(settings: Settings) -> Celery:
    """Return the application. It knows no task yet: workers register theirs, senders send by name.

    Queues are explicit: a task without a route is an error of its sender, not a message in a queue that nobody reads.
    Messages are short wake-ups; long work is owned by rows in PostgreSQL, so nothing depends on acknowledgements, on
    the visibility timeout or on what Redis remembers.
    """
    app = Celery("mistudio", set_as_current=False)
    app.conf.update(
        broker_url=settings.redis_url.get_secret_value(),
        result_backend=settings.redis_url.get_secret_value(),
        broker_transport_options=_transport(settings) | {"visibility_timeout": 3600},
        result_backend_transport_options=_transport(settings),
        redis_socket_connect_timeout=_CONNECT_SECONDS,
        redis_socket_timeout=_ANSWER_SECONDS,
        redis_socket_keepalive=True,
        redis_retry_on_timeout=True,
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_routes=ROUTES,
        task_default_queue=_NOT_A_QUEUE,
        task_create_missing_queues=False,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_send_sent_event=False,
        result_expires=_RESULT_SECONDS,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_CONNECT_SECONDS,
        enable_utc=True,
        timezone="UTC",
    )
    setup_logging.connect(_keep_our_logging, weak=False, dispatch_uid="mistudio")
    return app


def _transport(settings: Settings) -> dict[str, Any]:
    return {
        "global_keyprefix": f"{settings.redis_prefix}:celery:",
        "socket_connect_timeout": _CONNECT_SECONDS,
        "socket_timeout": _ANSWER_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _keep_our_logging(**_: Any) -> None:
    """Stop Celery from configuring the root logger: a receiver of this signal is how it is told."""
