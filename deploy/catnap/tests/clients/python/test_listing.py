"""Creation, lists, information and metrics of sandboxes."""

import uuid
from datetime import timedelta, timezone

import pytest
from conftest import NEWEST, newest_only, wait_until
from e2b import Sandbox, SandboxQuery, SandboxState
from e2b.exceptions import NotFoundException


def list_all(**kwargs):
    paginator = Sandbox.list(**kwargs)
    sandboxes = []
    while paginator.has_next:
        sandboxes += paginator.next_items()
    return sandboxes


@pytest.mark.short
def test_info_and_list_match_the_creation(create):
    mark = uuid.uuid4().hex
    metadata = {"a b": "c&d=e", "naïve": "日本", "mark": mark}
    sandbox = create(metadata=metadata, timeout=200)
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.metadata == metadata
    assert info.state == SandboxState.RUNNING
    assert info.cpu_count >= 1 and info.memory_mb >= 128
    assert timedelta(seconds=190) < info.end_at - info.started_at <= timedelta(seconds=201)
    (listed,) = list_all(query=SandboxQuery(metadata=metadata))
    assert (listed.sandbox_id, listed.started_at, listed.end_at) == (
        info.sandbox_id,
        info.started_at,
        info.end_at,
    )
    assert list_all(query=SandboxQuery(metadata={"mark": "other"})) == []


def test_list_is_paged_newest_first(create):
    mark = {"mark": uuid.uuid4().hex}
    created = [create(metadata=mark).sandbox_id for _ in range(3)]
    paginator = Sandbox.list(query=SandboxQuery(metadata=mark), limit=2)
    first = [it.sandbox_id for it in paginator.next_items()]
    assert paginator.has_next
    second = [it.sandbox_id for it in paginator.next_items()]
    assert not paginator.has_next
    assert first + second == created[::-1]
    # Pages stay consistent when a sandbox pauses between them.
    paginator = Sandbox.list(query=SandboxQuery(metadata=mark), limit=1)
    first = paginator.next_items()[0].sandbox_id
    Sandbox.connect(created[1]).pause()
    rest = []
    while paginator.has_next:
        rest += [it.sandbox_id for it in paginator.next_items()]
    assert sorted([first, *rest]) == sorted(created)
    paused = list_all(query=SandboxQuery(metadata=mark, state=[SandboxState.PAUSED]))
    assert [it.sandbox_id for it in paused] == [created[1]]


@newest_only
def test_list_is_filtered_by_time_and_template(create):
    mark = {"mark": uuid.uuid4().hex}
    info = create(metadata=mark).get_info()
    list_after = lambda when, **more: list_all(query=SandboxQuery(metadata=mark, started_after=when, **more))
    started = info.started_at.astimezone(timezone.utc)
    assert len(list_after(started)) == 1
    assert list_after(started + timedelta(seconds=1)) == []
    assert len(list_after(started, template="base")) == 1
    assert list_after(started, template="no-such-template") == []


@pytest.mark.short
def test_killed_sandbox_is_not_found(create):
    sandbox = create()
    assert sandbox.is_running()
    assert sandbox.kill() is True
    assert Sandbox.kill(sandbox.sandbox_id) is False
    assert not sandbox.is_running()
    with pytest.raises(NotFoundException):
        Sandbox.get_info(sandbox.sandbox_id)
    with pytest.raises(NotFoundException):
        Sandbox.connect(sandbox.sandbox_id)


def test_unknown_template_is_not_found():
    with pytest.raises(Exception, match="not found"):
        Sandbox.create("no-such-template")


@newest_only
def test_repeated_idempotency_key_creates_once(create):
    key = uuid.uuid4().hex
    mark = {"mark": key}
    first = create(metadata=mark, idempotency_key=key)
    repeated = create(metadata=mark, idempotency_key=key)
    assert repeated.sandbox_id == first.sandbox_id
    assert len(list_all(query=SandboxQuery(metadata=mark))) == 1


def test_wrong_api_key_is_refused():
    with pytest.raises(Exception) as refused:
        Sandbox.create(api_key="e2b_" + "1" * 40)
    assert type(refused.value).__name__ == "AuthenticationException"


def test_metrics_are_available_soon(create):
    sandbox = create()
    (first, *_) = wait_until(sandbox.get_metrics, timeout=30)
    assert first.cpu_count >= 1
    assert 0 < first.mem_used < first.mem_total
    assert 0 < first.disk_used < first.disk_total
    assert NEWEST or first.timestamp
    before = sandbox.get_info().started_at - timedelta(hours=1)
    assert sandbox.get_metrics(start=before - timedelta(hours=1), end=before) == []
