"""A coordinator that asks a site for the same step in two processes at once gets one answer."""

import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from secure_toys import NAMES, Attempted, terms_of, updates_of

from fedmedlora.errors import FederationError
from fedmedlora.federation.secure import messages
from fedmedlora.federation.secure.answering import SecureSite
from fedmedlora.federation.secure.own_secrets import OwnSecrets
from fedmedlora.federation.signing import make_key


class Slow(OwnSecrets):
    """Gives the other process time to read the same state, before this one has written."""

    def __init__(self, folder, meeting):
        super().__init__(folder)
        self._meeting = meeting

    def recall(self, terms, attempt):
        state = super().recall(terms, attempt)
        with suppress(threading.BrokenBarrierError):  # the other cannot come here: it waits
            self._meeting.wait(timeout=1)
        return state


@pytest.fixture
def masked(tmp_path):
    """A site of five that has sent its row, and the key file that it signs with."""
    one = Attempted(terms_of(5, threshold=3), updates_of(5))
    one.keys(), one.shares(), one.send_rows()
    key = tmp_path / "ash.key"
    make_key(key)
    OwnSecrets(tmp_path / "own").keep(one.states["ash"])
    return one, key


def at_once(answer, contents):
    """What came of calls in as many threads: an answer, or the error."""
    found = []

    def call(content):
        try:
            found.append(answer(content))
        except FederationError as error:
            found.append(error)

    threads = [threading.Thread(target=call, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_two_lists_of_survivors_at_once_are_not_both_signed(masked, tmp_path):
    one, key = masked
    own = Slow(tmp_path / "own", threading.Barrier(2))
    site = SecureSite(one.terms, "ash", key, own)
    lists = (NAMES[:5], NAMES[:4])  # with and without "elm": both kinds of its shares
    asked = [messages.agree_request(one.attempt, told) for told in lists]
    found = at_once(lambda content: site.answer(content, "agree"), asked)
    refused = [one for one in found if isinstance(one, FederationError)]
    assert len(refused) == 1
    assert "second time" in str(refused[0])


def test_keys_of_one_attempt_are_made_once_however_often_they_are_asked_for(masked, tmp_path):
    one, key = masked

    class Waiting(OwnSecrets):
        meeting = threading.Barrier(2)

        def ledger(self):
            found = super().ledger()
            with suppress(threading.BrokenBarrierError):
                self.meeting.wait(timeout=1)
            return found

    site = SecureSite(one.terms, "ash", key, Waiting(tmp_path / "own"))
    asked = [messages.request(replace(one.attempt, nonce="next")) for _ in range(2)]
    found = at_once(lambda content: site.answer(content, "keys"), asked)
    assert sorted(isinstance(one, FederationError) for one in found) == [False, True]
