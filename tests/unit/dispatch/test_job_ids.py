"""The ids of jobs: a job gets one at the first question for it. Step by step, without threads."""

import gc
import threading

import pytest

from supervisor import Query, QueryCancelled
from tests.support.common import switching_often
from tests.unit.dispatch.harness import QUICK, Harness, answer
from tests.unit.dispatch.strikes import cut_off, in_the_middle


@pytest.fixture
def crew():
    return Harness(size=1)


def test_ids_are_given_in_the_order_in_which_they_are_asked_for(crew):
    first, second = crew.submitted(2)
    assert (second.reply.id, first.reply.id, second.reply.id) == (1, 2, 1)


def test_a_job_that_nobody_asks_about_has_no_id(crew):
    worker = crew.worker()
    unnamed, named = crew.submitted(2)
    crew.work(worker)
    assert (unnamed.reply.known_id, named.reply.id) == (None, 1)
    assert repr(unnamed.reply) == "<Reply answered>"
    assert repr(named.reply) == "<Reply of job 1 answered>"


def test_each_crew_counts_for_itself():
    assert Harness(size=1).submit().reply.id == Harness(size=1).submit().reply.id == 1


def test_a_reply_that_is_computed_from_others_has_no_id(crew):
    assert crew.submit().reply.map(len).id is None


def test_two_threads_that_ask_first_at_once_get_the_same_id():
    def prepare():
        crew = Harness(size=1)
        job, ids = crew.submit(), []
        return (crew, job, ids), lambda: ids.append(job.reply.id), [lambda: ids.append(job.reply.id)]

    for (crew, job, ids), where in in_the_middle(prepare):
        assert ids == [job.reply.id] * 2, where
        assert crew.submit().reply.id != ids[0], where
        assert crew.dispatcher.cancel_by_id(ids[0]), where
        assert job.reply.cancelled(), where


def test_many_threads_that_ask_at_once_get_the_same_id(crew):
    with switching_often():
        for _ in range(200):
            job, ids = crew.submit(), []
            begin = threading.Barrier(4)

            def ask(job=job, ids=ids, begin=begin):
                begin.wait()
                ids.append(job.reply.id)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(ids) == 4
            assert len({*ids}) == 1
            assert crew.dispatcher.cancel_by_id(ids[0])


def test_a_thread_that_is_cut_off_as_it_asks_leaves_an_id_that_leads_to_the_job():
    def prepare():
        crew = Harness(size=1)
        job = crew.submit()
        return (crew, job), lambda: job.reply.id

    for (crew, job), where in cut_off(prepare):
        assert crew.dispatcher.cancel_by_id(job.reply.id), where
        assert job.reply.cancelled(), where


# --- cancelling ---------------------------------------------------------------------------


def test_a_job_whose_reply_is_lost_is_cancelled_by_its_id(crew):
    worker = crew.worker()
    job = crew.submit()
    number = crew.status().waiting[0].id
    assert crew.dispatcher.cancel_by_id(number) is True
    assert job.reply.cancelled()
    assert crew.dispatcher.cancel_by_id(number) is False
    crew.work(worker)
    assert not crew.begun


def test_an_id_stays_known_after_its_job_and_reply_are_gone(crew):
    worker = crew.worker()
    number = crew.submit().reply.id
    crew.work(worker)
    crew.jobs.clear()
    crew.settled.clear()
    crew.begun.clear()
    gc.collect()
    assert crew.dispatcher.job_ids.reply_of(number) is None
    assert crew.dispatcher.cancel_by_id(number) is False


@pytest.mark.parametrize("number", [0, -1, 2, 10**30])
def test_an_id_that_no_job_has_ever_had_is_an_error(crew, number):
    assert crew.submit().reply.id == 1
    with pytest.raises(LookupError, match=rf"crew 'app': no job has the id {number}; `Status` shows the ids"):
        crew.dispatcher.cancel_by_id(number)


@pytest.mark.parametrize("ending", ["begins", "ends", "is cancelled too", "is requeued"])
def test_a_cancel_by_id_tells_the_truth_at_every_moment(ending):
    def prepare():
        crew = Harness(size=1)
        worker, said = crew.worker(), []
        job = crew.submit()
        number = job.reply.id
        batch = crew.take(worker)
        if ending == "ends":
            batch.begin()
        act = {
            "begins": batch.begin,
            "ends": lambda: answer(worker),
            "is cancelled too": lambda: said.append(crew.dispatcher.cancel_by_id(number)),
            "is requeued": lambda: crew.die(worker),
        }[ending]
        state = (crew, worker, job, said)
        return state, lambda: said.append(crew.dispatcher.cancel_by_id(number)), [act]

    def other_way_round():
        state, step, [act] = prepare()
        return state, act, [step]

    answers = set()
    for struck in (in_the_middle(prepare), in_the_middle(other_way_round)):
        for (crew, worker, job, said), where in struck:
            if worker.batch is not None and worker.batch.running:
                answer(worker)
            crew.settle_all()
            assert said.count(True) >= 1 or ending == "ends", where
            # Two cancels of a running job promise the same end, so both say True.
            assert job.reply.cancelled() is (True in said), where
            assert crew.status().cancelled == int(True in said), where
            answers.update(said)
    assert True in answers


# --- the status ---------------------------------------------------------------------------


def test_a_status_names_the_running_and_the_waiting_jobs(crew):
    crew.knows()
    worker = crew.worker()
    running, *waiting = crew.submitted(3, Query("SELECT ?", ("secret",)))
    crew.begin(worker)
    crew.clock.now += 2
    status = crew.status()
    assert status.workers[0].jobs == (running.reply.id,)
    assert [each.id for each in status.waiting] == [job.reply.id for job in waiting]
    assert {each.request for each in status.waiting} == {"Query('SELECT ?')"}
    assert [each.seconds for each in status.waiting] == [2, 2]
    assert "secret" not in repr(status) + str(status)
    assert f"job {running.reply.id}: Query('SELECT ?')" in str(status)
    assert f"job {waiting[0].reply.id} " in str(status)


def test_a_status_names_each_waiting_job_once_also_in_a_batch(crew):
    crew.knows()
    worker = crew.worker()
    jobs = crew.submitted(3, QUICK)
    batch = crew.take(worker)
    batch.begin()
    assert [each.id for each in crew.status().waiting] == [job.reply.id for job in jobs[1:]]


def test_a_status_names_a_bounded_number_of_waiting_jobs_and_no_cancelled_ones(crew):
    jobs = crew.submitted(500)
    assert jobs[0].reply.cancel()
    named = crew.status().waiting
    assert [each.id for each in named] == [job.reply.id for job in jobs[1:101]]
    assert str(crew.status()).endswith("and 489 more jobs wait")
    assert sum(job.reply.known_id is not None for job in jobs) == 100


def test_the_writers_job_has_its_id_in_the_status():
    crew = Harness(size=1, has_writer=True)
    writer = crew.worker(lane=1)
    job = crew.submit(Query("INSERT INTO t VALUES (1)"))
    assert crew.begin(writer) is job
    status = crew.status()
    assert (status.writing, status.writing_id) == (str(job.request), job.reply.id)


def test_the_times_since_an_earlier_snapshot_count_the_new_jobs_only(crew):
    worker = crew.worker()
    crew.submit()
    crew.begin(worker)
    crew.clock.now += 8
    answer(worker)
    worker.batch.close()
    before = crew.status()
    assert before.runs_since(before).count == 0
    crew.submit()
    crew.begin(worker)
    crew.clock.now += 0.5
    answer(worker)
    worker.batch.close()
    recent = crew.status().runs_since(before)
    assert recent.count == 1
    assert recent.p50 == recent.max == pytest.approx(0.5, rel=0.12)
    assert crew.status().waits_since(before).count == 1
    assert "counts" not in repr(before)


def test_a_promised_cancel_is_an_error_of_the_cancelled_job(crew):
    worker = crew.worker()
    job = crew.submit()
    crew.begin(worker)
    assert crew.dispatcher.cancel_by_id(job.reply.id)
    answer(worker)
    assert isinstance(job.reply.exception(0), QueryCancelled)
