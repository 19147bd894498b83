"""A crew on a database of your own: here a small store of keys and values behind a socket.

The first half is the store: a server that any program might have written. The second half is all
that querycrew needs to know about it.
"""

import select
import socket
import socketserver
import threading
from contextlib import suppress

from supervisor import Connection, ConnectionLost, Query, QueryTimeout, Result, Status, Supervisor


class Store(socketserver.ThreadingTCPServer):
    """Answers lines such as `7 SET key value` and `8 GET key`. The number comes back first."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Client)
        self.values = {}
        self.sockets = []
        self.running = {}  # the connection and the number of a command that sleeps, and its alarm
        threading.Thread(target=self.serve_forever, args=(0.01,)).start()


class Client(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.sockets.append(self.connection)
        name = str(len(self.server.sockets))
        self.wfile.write(f"{name}\n".encode())
        with suppress(ConnectionError):
            for line in self.rfile:
                number, *command = line.decode().split()
                self.wfile.write(f"{number} {self.answer(name, number, command)}\n".encode())

    def answer(self, name, number, command):
        match command:
            case ["SET", key, value]:
                self.server.values[key] = value
                return "OK"
            case ["GET", key]:
                return f"OK {self.server.values.get(key, '')}"
            case ["SLEEP", seconds]:
                alarm = self.server.running[name, number] = threading.Event()
                return "ERROR cancelled" if alarm.wait(float(seconds)) else "OK"
            case ["CANCEL", other, its_number]:
                with suppress(KeyError):  # a late cancel finds nothing to end
                    self.server.running[other, its_number].set()
                return "OK"
        return "ERROR unknown command"


# --- the part that an author writes -------------------------------------------------------


class StoreError(Exception):
    """An error that the store reports about a command."""


class StoreDatabase:
    """Where the store is. A small value, which `ChildProcess` could send to another process."""

    name = "store"
    max_size = None  # any number of workers
    default_size = 2
    errors = (StoreError,)  # for `except db.errors:`

    def __init__(self, address):
        self.address = address

    def __str__(self):
        return "Store"  # names the database, and shows no secret

    def connect(self):
        return StoreConnection(self.address)


class StoreConnection(Connection):
    def __init__(self, address):
        self.address = address
        self.socket = socket.create_connection(address)
        self.lines = self.socket.makefile("rb")
        try:
            self.name = self.lines.readline().decode().strip()
        except OSError:
            self.close()
            raise
        self.number = 0
        self.sent = []  # the jobs that were sent and not answered, each with its number

    # One request at a time. This method alone makes a database.

    def execute(self, request):
        match request:
            case Query():
                self.send(request)
                return self.receive()
            case _:
                return super().execute(request)  # refuses the request by name

    def send(self, query):
        self.number += 1
        command = " ".join([query.sql, *map(str, query.params)])
        try:
            self.socket.sendall(f"{self.number} {command}\n".encode())
        except OSError as error:
            raise ConnectionLost(str(error), blames=False) from error
        return self.number

    def receive(self):
        try:
            answer = self.lines.readline().decode().split()
        except OSError as error:
            raise ConnectionLost(str(error), blames=False) from error
        match answer:
            case [_, "OK", *values]:
                return Result(("value",), [(value,) for value in values], len(values))
            case [_, "ERROR", *words]:
                raise StoreError(" ".join(words))
        message = "the store has closed the connection"
        raise ConnectionLost(message, blames=False) from ConnectionError(message)

    # An interrupt must never block, so a thread sends it. It names the number of the command: if it
    # comes late, it finds nothing to end, and hits no other command.

    def interrupt(self):
        self.cancel_number(self.number)

    def cancel(self, task):
        for other, number in tuple(self.sent):
            if other is task:
                self.cancel_number(number)

    def cancel_number(self, number):
        threading.Thread(target=self.send_cancel, args=(number,), daemon=True).start()

    def send_cancel(self, number):
        with suppress(OSError), socket.create_connection(self.address) as other:
            other.sendall(f"0 CANCEL {self.name} {number}\n".encode())
            with other.makefile("rb") as lines:
                lines.readline()  # the number of this connection
                lines.readline()  # the cancel has arrived

    # Optional: jobs that wait together travel together.

    def run(self, batch):
        while (task := batch.begin()) is not None:
            if type(task.request) is Query:
                self.sent.append((task, self.send(task.request)))
            if type(task.request) is not Query or len(self.sent) == 16:
                self.receive_all(batch)
            if type(task.request) is not Query:
                self.run_one(batch, task)
        self.receive_all(batch)

    def receive_all(self, batch):
        while self.sent:
            task, _ = self.sent[0]
            try:
                value = self.receive()
            except StoreError as error:
                batch.fail(task, error)
            else:
                batch.answer(task, value)
            self.sent.pop(0)

    # Optional: an idle connection that the server has closed costs no caller anything.

    def check(self):
        if select.select([self.socket], [], [], 0)[0]:
            message = "the store has closed the idle connection"
            raise ConnectionLost(message, begun=False, blames=False)

    # Optional: a worker that is given up need not wait for ever.

    def abandon(self):
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.lines.close()
        self.socket.close()


if __name__ == "__main__":
    with Store() as store:
        with Supervisor.start(StoreDatabase(store.server_address)) as db:
            db.ask(Query("SET", ("colour", "blue")))
            replies = [db.ask(Query("GET", ("colour",)), block=False) for _ in range(100)]
            print({reply.get().scalar() for reply in replies}, "from", db.ask(Status()).size, "workers")

            try:
                db.ask(Query("SLEEP", (60,), timeout=0.1))
            except QueryTimeout as error:
                print("interrupted; executed:", error.executed)
            try:
                db.ask(Query("JUMP"))
            except db.errors as error:
                print(type(error).__name__, error)

            print(db.ask(Query("GET", ("colour",))).scalar(), "and", db.ask(Status()).died, "workers died")
        store.shutdown()
