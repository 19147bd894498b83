"""Wire: sends statements to the server and reads the results, one by one or in a pipeline.

A cursor of psycopg cannot give each statement of a pipeline its own transaction and its own error.
So this module uses the next layer below: `psycopg.pq`, which wraps libpq.
"""

import select
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import errors, pq

from actors.databases.postgres.prepared import Bound, Prepared, check_text
from actors.values.result import Result

__all__ = ["Wire", "joined", "result_of"]

_STATUS: Final = pq.ExecStatus
_FAILED: Final = (_STATUS.FATAL_ERROR, _STATUS.BAD_RESPONSE, _STATUS.PIPELINE_ABORTED)
_COPIES: Final = (_STATUS.COPY_IN, _STATUS.COPY_OUT, _STATUS.COPY_BOTH)
_PARTS: Final = (_STATUS.TUPLES_CHUNK, _STATUS.SINGLE_TUPLE)
_PART: Final = 1000  # rows of a part of an answer
_ENDING: Final = ("57P", "25P03")
"""How the SQLSTATEs begin with which a server ends connections: a shutdown, a crash, a timeout."""
_NO_COPY: Final = b"COPY needs a Call, whose function gets the connection"


class Wire:
    """The statements and results of one connection. All methods belong to the worker's thread."""

    def __init__(self, driver: "psycopg.Connection[Any]", prepared: Prepared) -> None:
        self._driver = driver
        self._prepared = prepared
        self.pgconn = driver.pgconn
        # As psycopg sets it. A statement that is larger than the socket's buffer must not block.
        self.pgconn.nonblocking = 1
        # Whether the server has said that it ends the connection. The end comes a little later.
        self._is_ending = False
        driver.add_notice_handler(self._hear)
        self._poll = select.poll()
        self._poll.register(self.pgconn.socket, select.POLLIN)

    @property
    def is_lost(self) -> bool:
        """Whether the server has ended the connection, as far as this end knows."""
        return self.pgconn.status != pq.ConnStatus.OK

    @property
    def is_idle(self) -> bool:
        """Whether no transaction is open."""
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    @property
    def is_in_transaction(self) -> bool:
        """Whether a transaction is open that has not failed."""
        return self.pgconn.transaction_status == pq.TransactionStatus.INTRANS

    def look(self) -> None:
        """Read messages that came while the connection was idle. Takes a microsecond if none came.

        Raises:
            psycopg.Error: the server has ended the connection.
        """
        if self._poll.poll(0):
            self.pgconn.consume_input()
        while self.pgconn.notifies() is not None:
            pass  # libpq keeps the notifications of a connection that listens
        if self.is_lost or self._is_ending:
            raise _lost()

    def _hear(self, notice: Any) -> None:
        """Look at a message that the server has sent on its own. psycopg calls it."""
        self._is_ending = self._is_ending or (notice.sqlstate or "").startswith(_ENDING)

    # --- one statement, or a text of several ----------------------------------------------

    def run(self, bound: Bound) -> Any:
        """Run one statement in a transaction of its own, or in the open transaction.

        Returns:
            The libpq result; see `result_of`.

        Raises:
            psycopg.Error: the statement failed, or the connection is lost.
        """
        self._prepare(bound)
        self._send(bound)
        try:
            return self._all()[-1]
        except psycopg.Error as error:
            self._prepared.note_error(bound, error)
            raise

    def run_limited(self, bound: Bound, most: int) -> list[Any]:
        """Run one statement as `run` does, and keep little more than `most` of its rows.

        The rows come in small parts. The server still sends all of them.

        Returns:
            The libpq results; see `joined`.
        """
        self._prepare(bound)
        self._send(bound)
        if psycopg.capabilities.has_stream_chunked():
            self.pgconn.set_chunked_rows_mode(min(most + 1, _PART))
        else:
            self.pgconn.set_single_row_mode()
        try:
            return self._all(most)
        except psycopg.Error as error:
            self._prepared.note_error(bound, error)
            raise

    def _prepare(self, bound: Bound) -> None:
        self._renew()
        if self._prepared.is_due(bound):
            name = self._prepared.add(bound)
            self.pgconn.send_prepare(name, bound.query, param_types=bound.types)
            try:
                self._all()
            except psycopg.Error:
                self._prepared.remove(bound)
                raise

    def command(self, sql: str) -> list[Any]:
        """Run a text of any number of statements without parameters; return their libpq results.

        Raises:
            psycopg.Error: a statement failed, or the connection is lost.
        """
        check_text(sql)
        self.pgconn.send_query(sql.encode(self._driver.info.encoding))
        return self._all()

    def _all(self, most: int | None = None) -> list[Any]:
        """Return the results of a statement that was sent outside of a pipeline.

        Of the parts of an answer those with the first `most` rows are kept, one more, and the last.

        A commit may fail after the result of its statement. So the first error counts.
        """
        results: list[Any] = []
        failed: Any = None
        count, is_surplus = 0, False
        self._flush()
        while (result := self._next(failed)) is not None:
            if result.status in _COPIES:
                self._end_copy(result.status)
            elif result.status in _FAILED:
                failed = failed or result
            elif most is not None and result.status in _PARTS:
                if is_surplus:
                    results.pop()
                is_surplus = count > most
                count += result.ntuples
            results.append(result)
        if failed is not None:
            raise self.error(failed)
        if not results:
            raise _lost()
        if results[-1].status in _COPIES:
            raise errors.FeatureNotSupported(_NO_COPY.decode())
        return results

    def _end_copy(self, status: Any) -> None:
        if status == _STATUS.COPY_IN:
            self.pgconn.put_copy_end(_NO_COPY)
            self._flush()
            return
        while True:
            size, _ = self.pgconn.get_copy_data(1)
            if size < 0:
                return
            if size == 0:
                self._poll.poll()
                self.pgconn.consume_input()

    # --- a pipeline -----------------------------------------------------------------------

    def pipeline(self, bounds: Sequence[Bound], *, together: bool = False) -> list[Any]:
        """Send statements at once, and return the outcome of each: a libpq result, or an error.

        Args:
            bounds: the statements.
            together: whether they share a transaction (one Sync). Otherwise each has its own. If a
                shared transaction fails, each statement after the failed one has the error
                `PipelineAborted`. If its commit fails, all have that error.

        Raises:
            psycopg.Error: the connection is lost.
        """
        self._renew()
        try:
            return self._through_pipeline(bounds, together=together)
        except BaseException:
            self.pgconn.finish()  # nobody knows which answers are still to come
            raise

    def _through_pipeline(self, bounds: Sequence[Bound], *, together: bool) -> list[Any]:
        pgconn, prepared = self.pgconn, self._prepared
        pgconn.enter_pipeline_mode()
        # How many results each statement has, without the error of a commit.
        counts: list[int] = []
        for bound in bounds:
            if prepared.is_due(bound):
                pgconn.send_prepare(prepared.add(bound), bound.query, param_types=bound.types)
                counts.append(2)
            else:
                counts.append(1)
            self._send(bound)
            if not together:
                pgconn.pipeline_sync()
        if together:
            pgconn.pipeline_sync()
        self._flush()
        outcomes = self._shared(counts) if together else [self._outcome(self._until_sync()) for _ in bounds]
        pgconn.exit_pipeline_mode()
        for bound, outcome, count in zip(bounds, outcomes, counts, strict=True):
            if isinstance(outcome, psycopg.Error):
                if count == 2:
                    prepared.remove(bound)  # perhaps it was prepared; the name is not used again
                prepared.note_error(bound, outcome)
        return outcomes

    def _shared(self, counts: list[int]) -> list[Any]:
        results = self._until_sync()
        outcomes, place = [], 0
        for count in counts:
            outcomes.append(self._outcome(results[place : place + count]))
            place += count
        if len(results) > place:  # the commit has failed
            outcomes = [self._outcome(results[place:])] * len(counts)
        return outcomes

    def _outcome(self, results: list[Any]) -> Any:
        for result in results:
            if result.status in _FAILED:
                return self.error(result)
        return results[-1]

    def _until_sync(self) -> list[Any]:
        """Return the results until the next Sync."""
        results: list[Any] = []
        failed: Any = None
        while True:
            result = self._next(failed)
            if result is None:
                continue
            if result.status == _STATUS.PIPELINE_SYNC:
                return results
            if result.status in _COPIES:
                raise _lost()  # libpq can neither end nor skip a copy in a pipeline
            results.append(result)
            if result.status == _STATUS.FATAL_ERROR:
                failed = result

    # --- libpq ----------------------------------------------------------------------------

    def _send(self, bound: Bound) -> None:
        name = bound.name = bound.statement.names.get(bound.types)
        if name is None:
            self.pgconn.send_query_params(
                bound.query, bound.params, param_types=bound.types or None, param_formats=bound.formats
            )
        else:
            self.pgconn.send_query_prepared(name, bound.params, param_formats=bound.formats)

    def _flush(self) -> None:
        """Send all messages, and read meanwhile: the server may wait for its reader."""
        pgconn = self.pgconn
        while pgconn.flush():
            poll = select.poll()
            poll.register(pgconn.socket, select.POLLIN | select.POLLOUT)
            if any(event & select.POLLIN for _, event in poll.poll()):
                pgconn.consume_input()

    def _next(self, failed: Any = None) -> Any:
        """Wait for the next result. `None` is the end of the results of a statement.

        Args:
            failed: the result before, if it is an error. It tells why the server has ended the
                connection.

        Raises:
            psycopg.Error: the connection is lost.
        """
        pgconn = self.pgconn
        try:
            while pgconn.is_busy():
                self._poll.poll()
                pgconn.consume_input()
        except psycopg.Error:
            if failed is None:
                raise
            raise self.error(failed) from None
        return pgconn.get_result()

    def _renew(self) -> None:
        """Drop all prepared statements if some are stale."""
        if self._prepared.is_stale and self.is_idle:
            self.command("DEALLOCATE ALL")
            self._prepared.forget()

    def error(self, result: Any) -> psycopg.Error:
        """Return the error of a result that failed."""
        if result.status == _STATUS.PIPELINE_ABORTED:
            return errors.PipelineAborted("an earlier statement of the transaction failed")
        return errors.error_from_result(result, encoding=self._driver.info.encoding)


def _lost() -> psycopg.OperationalError:
    return psycopg.OperationalError("the connection is lost")


def result_of(bound: Bound, answer: Any) -> Result:
    """Return the rows of a libpq result as Python values.

    Raises:
        psycopg.DataError: Python has no such value, for example for the date `infinity`.
    """
    if answer.status != _STATUS.TUPLES_OK and answer.status not in _PARTS:
        return Result((), [], answer.command_tuples or 0)
    statement, transformer = bound.statement, bound.statement.transformer
    # The rows of a prepared statement never change their types: the server refuses it then.
    is_new = bound.name is None or statement.loaded != bound.name
    transformer.set_pgresult(answer, set_loaders=is_new)
    if is_new:
        names = [answer.fname(number) or b"" for number in range(answer.nfields)]
        statement.columns = tuple(name.decode(transformer.encoding, "replace") for name in names)
        statement.loaded = bound.name
    count = answer.ntuples
    rows = transformer.load_rows(0, count, tuple)
    transformer.set_pgresult(None, set_loaders=False)  # a known statement keeps no rows
    changed = answer.command_tuples
    return Result(statement.columns, rows, count if changed is None else changed)


def joined(bound: Bound, parts: list[Any]) -> Result:
    """Return the rows of an answer that came in parts, as `result_of` does.

    The last part, or the one before it, has the number of rows.
    """
    rows = [row for part in parts for row in result_of(bound, part).rows]
    columns = bound.statement.columns if parts[-1].status == _STATUS.TUPLES_OK else ()
    return Result(columns, rows, sum(part.command_tuples or 0 for part in parts))
