"""What there is, and what is said of it."""

import uuid
from datetime import timedelta, timezone

import pytest
from conftest import NEWEST, newest_only
from e2b import Sandbox, SandboxQuery, SandboxState
from e2b.exceptions import NotFoundException


def everything(**kwargs):
    paginator = Sandbox.list(**kwargs)
    found = []
    while paginator.has_next:
        found += paginator.next_items()
    return found


def test_a_sandbox_is_said_to_be_what_was_asked_for(create):
    mark = uuid.uuid4().hex
    metadata = {"a b": "c&d=e", "naïve": "日本", "mark": mark}
    sandbox = create(metadata=metadata, timeout=200)
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.metadata == metadata
    assert info.state == SandboxState.RUNNING
    assert info.cpu_count >= 1 and info.memory_mb >= 128
    assert timedelta(seconds=190) < info.end_at - info.started_at <= timedelta(seconds=201)
    (listed,) = everything(query=SandboxQuery(metadata=metadata))
    assert (listed.sandbox_id, listed.started_at, listed.end_at) == (
        info.sandbox_id,
        info.started_at,
        info.end_at,
    )
    assert everything(query=SandboxQuery(metadata={"mark": "other"})) == []


def test_lists_come_in_pages_newest_first(create):
    mark = {"mark": uuid.uuid4().hex}
    made = [create(metadata=mark).sandbox_id for _ in range(3)]
    paginator = Sandbox.list(query=SandboxQuery(metadata=mark), limit=2)
    first = [one.sandbox_id for one in paginator.next_items()]
    assert paginator.has_next
    second = [one.sandbox_id for one in paginator.next_items()]
    assert not paginator.has_next
    assert first + second == made[::-1]
    # A page that was begun goes on where it was, also when a sandbox falls asleep meanwhile.
    paginator = Sandbox.list(query=SandboxQuery(metadata=mark), limit=1)
    first = paginator.next_items()[0].sandbox_id
    Sandbox.connect(made[1]).pause()
    rest = []
    while paginator.has_next:
        rest += [one.sandbox_id for one in paginator.next_items()]
    assert sorted([first, *rest]) == sorted(made)
    asleep = everything(query=SandboxQuery(metadata=mark, state=[SandboxState.PAUSED]))
    assert [one.sandbox_id for one in asleep] == [made[1]]


@newest_only
def test_lists_are_filtered_by_time_and_template(create):
    mark = {"mark": uuid.uuid4().hex}
    info = create(metadata=mark).get_info()
    at = lambda when, **more: everything(query=SandboxQuery(metadata=mark, started_after=when, **more))
    started = info.started_at.astimezone(timezone.utc)
    assert len(at(started)) == 1
    assert at(started + timedelta(seconds=1)) == []
    assert len(at(started, template="base")) == 1
    assert at(started, template="no-such-template") == []


def test_what_was_killed_is_gone(create):
    sandbox = create()
    assert sandbox.is_running()
    assert sandbox.kill() is True
    assert Sandbox.kill(sandbox.sandbox_id) is False
    assert not sandbox.is_running()
    with pytest.raises(NotFoundException):
        Sandbox.get_info(sandbox.sandbox_id)
    with pytest.raises(NotFoundException):
        Sandbox.connect(sandbox.sandbox_id)


def test_an_unknown_template_is_no_sandbox():
    with pytest.raises(Exception, match="not found"):
        Sandbox.create("no-such-template")


@newest_only
def test_a_repeated_creation_makes_one_sandbox(create):
    key = uuid.uuid4().hex
    mark = {"mark": key}
    first = create(metadata=mark, idempotency_key=key)
    again = create(metadata=mark, idempotency_key=key)
    assert again.sandbox_id == first.sandbox_id
    assert len(everything(query=SandboxQuery(metadata=mark))) == 1


def test_a_wrong_key_is_refused():
    with pytest.raises(Exception) as refused:
        Sandbox.create(api_key="e2b_" + "1" * 40)
    assert type(refused.value).__name__ == "AuthenticationException"


def test_figures_of_the_guest_come_soon(create):
    from conftest import until

    sandbox = create()
    (first, *_) = until(sandbox.get_metrics, limit=30)
    assert first.cpu_count >= 1
    assert 0 < first.mem_used < first.mem_total
    assert 0 < first.disk_used < first.disk_total
    assert NEWEST or first.timestamp
    before = sandbox.get_info().started_at - timedelta(hours=1)
    assert sandbox.get_metrics(start=before - timedelta(hours=1), end=before) == []
