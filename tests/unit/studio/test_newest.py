import threading

from dmgi_lib.studio.newest import Newest


def test_what_waits_is_replaced_and_the_urgent_lane_comes_first():
    jobs, done, go = Newest("draw", "preview"), [], threading.Event()
    begun = threading.Event()

    def first():
        begun.set()
        assert go.wait(20)
        done.append("first")

    jobs.put("preview", first)
    assert begun.wait(20)
    for name in ("old", "new"):
        jobs.put("preview", lambda name=name: done.append(name))
    jobs.put("draw", lambda: done.append("draw"))
    assert not jobs.join(0.01)
    go.set()
    assert jobs.join(20)
    assert done == ["first", "draw", "new"]


def test_an_idle_one_has_no_thread_and_starts_again():
    jobs, done = Newest("draw"), []
    for number in range(3):
        jobs.put("draw", lambda number=number: done.append(number))
        assert jobs.join(20)
    assert done == [0, 1, 2]
    for thread in threading.enumerate():
        if thread.name == "dmgi studio":
            thread.join(20)
            assert not thread.is_alive()
