from __future__ import annotations

import threading
import time

import pytest

from serving.read_write_lock import ReadWriteLock


def test_read_write_lock_lets_readers_in_together():
    lock, together = ReadWriteLock(), threading.Barrier(3)

    def read() -> None:
        with lock.read():
            together.wait(5)  # breaks unless all three hold the lock at once

    run_all([read] * 3)
    assert not together.broken


def test_read_write_lock_keeps_writers_alone():
    lock, values, torn = ReadWriteLock(), [0, 0], []

    def write() -> None:
        for _ in range(300):
            with lock.write():
                values[0] += 1
                values[1] += 1

    def read() -> None:
        for _ in range(300):
            with lock.read():
                first = values[0]
                torn.append(first != values[1])

    run_all([write, write, read, read])
    assert values == [600, 600]
    assert not any(torn)


def test_read_write_lock_puts_a_waiting_writer_before_new_readers():
    lock, order = ReadWriteLock(), []
    reading, may_leave = threading.Event(), threading.Event()

    def first_reader() -> None:
        with lock.read():
            reading.set()
            may_leave.wait(5)

    def writer() -> None:
        with lock.write():
            order.append("writer")

    def second_reader() -> None:
        with lock.read():
            order.append("reader")

    threads = [threading.Thread(target=first_reader), threading.Thread(target=writer)]
    threads[0].start()
    reading.wait(5)
    threads[1].start()
    while not lock._writers_waiting:
        pass
    threads.append(threading.Thread(target=second_reader))
    threads[2].start()
    threads[2].join(0.05)
    assert order == []
    may_leave.set()
    for thread in threads:
        thread.join(5)
    assert order == ["writer", "reader"]


def test_a_patient_writer_holds_no_reader_back_until_its_patience_is_over():
    lock = ReadWriteLock()
    reading, may_leave, order = threading.Event(), threading.Event(), []

    def long_reader() -> None:
        with lock.read():
            reading.set()
            may_leave.wait(5)
            order.append("long reader")

    def writer() -> None:
        with lock.write(patience_s=60.0):
            order.append("writer")

    threads = [threading.Thread(target=long_reader), threading.Thread(target=writer)]
    threads[0].start()
    reading.wait(5)
    threads[1].start()
    for _ in range(100):
        with lock.read():
            pass
    order.append("readers")
    may_leave.set()
    for thread in threads:
        thread.join(5)
    assert order == ["readers", "long reader", "writer"]


def test_an_impatient_writer_gets_its_turn_between_readers_that_never_all_leave():
    lock = ReadWriteLock()
    stop = threading.Event()

    def reader() -> None:
        while not stop.is_set():
            with lock.read():
                time.sleep(0.002)

    readers = [threading.Thread(target=reader) for _ in range(4)]
    for thread in readers:
        thread.start()
    with lock.write(patience_s=0.01):
        stop.set()
    for thread in readers:
        thread.join(5)


def test_read_write_lock_is_free_again_after_an_error():
    lock = ReadWriteLock()
    with pytest.raises(ZeroDivisionError), lock.write():
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), lock.read():
        raise ZeroDivisionError
    with lock.write():
        pass


def run_all(targets) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
