"""The LRU cache is bounded, keeps recent values, and does not block other threads."""

import threading

import pytest

from skstack._base.lru_cache import LRUCache


def never():
    pytest.fail("the value is in the cache")


def test_the_least_recently_used_value_is_dropped_first():
    cache = LRUCache(2)
    for key in "ab":
        cache.get(key, lambda: key.upper())  # noqa: B023
    assert cache.get("a", never) == "A"
    cache.get("c", lambda: "C")
    assert cache.values() == ["A", "C"]
    assert cache.find("b") is None
    cache.clear()
    assert (cache.values(), cache.size) == ([], 0)


def test_the_cache_is_bounded_by_size_and_large_values_are_not_kept():
    cache = LRUCache(10, size_of=len, largest=6)
    assert cache.get("large", lambda: "x" * 7) == "x" * 7
    assert cache.find("large") is None
    for key in "abc":
        cache.get(key, lambda: "x" * 4)
    assert (list(cache.values()), cache.size) == (["x" * 4] * 2, 8)
    assert cache.find("a") is None


def test_a_value_may_be_computed_from_other_cached_values():
    cache = LRUCache(4)
    assert cache.get("outer", lambda: cache.get("inner", lambda: 1) + 1) == 2
    assert cache.get("inner", never) == 1


def test_the_first_of_two_threads_sets_the_value():
    cache, made, go_on, found = LRUCache(4), threading.Event(), threading.Event(), []

    def slow():
        made.set()
        assert go_on.wait(30)
        return "second"

    thread = threading.Thread(target=lambda: found.append(cache.get("key", slow)))
    thread.start()
    assert made.wait(30)
    assert cache.get("key", lambda: "first") == "first"  # no lock is held meanwhile
    go_on.set()
    thread.join()
    assert found == ["first"]


def test_a_failed_value_is_computed_at_the_next_call():
    cache = LRUCache(4)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    assert cache.get("key", lambda: 1) == 1
