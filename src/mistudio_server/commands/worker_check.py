"""Whether a worker really processes a task: one is sent, and its answer awaited."""

import asyncio
import json
from typing import Any

from celery.exceptions import TimeoutError as NoAnswerError
from kombu.exceptions import OperationalError

from mistudio_server.services.health import CheckFailedError
from mistudio_server.settings import Settings
from mistudio_server.workers.app import create_celery
from mistudio_server.workers.names import MAINTENANCE, PING

async def check_worker(settings: Settings, limit: float) -> str:
    """Send ``mistudio.maintenance.ping`` and return who answered it, within ``limit`` seconds."""
    answer = await asyncio.to_thread(_ping, settings, limit * 0.9)
    return json.dumps(answer, sort_keys=True) if isinstance(answer, dict) else str(answer)


def _ping(settings: Settings, limit: float) -> Any:
    celery = create_celery(settings)
    try:
        sent = celery.send_task(PING, queue=MAINTENANCE, expires=limit, retry=False, ignore_result=False)
        return sent.get(timeout=limit, interval=0.02)
    except NoAnswerError:
        raise CheckFailedError(
            f"no worker answered within {limit:.1f} s", "see that a worker runs and consumes the queue maintenance"
        ) from None
    except OperationalError as error:
        raise CheckFailedError(f"the task could not be sent: {error}", "see that Redis runs at REDIS_URL") from error
    finally:
        celery.close()
