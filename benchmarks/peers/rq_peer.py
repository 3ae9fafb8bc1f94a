"""RQ on Redis.

Settings, and why:

- ``SimpleWorker``, which does not fork for each job, as the default worker does. It has one job at a time.
- ``enqueue_many``, a thousand in one transaction. Results are waited for by Redis (a stream for each job), its default.
- It is not asyncio.
- Not done: what a killed worker had is moved to the failed jobs, unless the job has been given retries.
"""

from beside import LINE, PLACE, Peer, main, tick
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job

redis = Redis.from_url(PLACE)
queue = Queue(LINE, connection=redis)


def noop() -> None:
    tick()


class Rq(Peer):
    async def one(self) -> object:
        return self.submit()

    def submit(self) -> Job:
        return queue.enqueue("rq_peer.noop")

    async def many(self, number: int) -> None:
        for _ in range(0, number, 1000):
            queue.enqueue_many([Queue.prepare_data("rq_peer.noop") for _ in range(1000)])

    async def ask(self) -> None:
        job = self.submit()
        job.latest_result(timeout=20)

    def work(self, measure: str) -> None:
        SimpleWorker([queue], connection=redis).work(logging_level="WARNING")

    def ended(self, total: int) -> bool:
        return queue.finished_job_registry.count >= total


if __name__ == "__main__":
    main(Rq())
