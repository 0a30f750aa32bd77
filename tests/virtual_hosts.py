"""A fresh virtual host for every test on one shared broker: nobody meets another test's queues."""

import itertools

from tests.broker import Broker

# One run of rabbitmqctl costs 0.3 s and each virtual host 0.01 s: they are made by the dozen.
BATCH = 16


class VirtualHosts:
    """Hands out URLs of empty virtual hosts of `broker`, and removes those that were given back."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._numbers = itertools.count(1)
        self._fresh: list[str] = []
        self._used: list[str] = []

    def take(self) -> str:
        if not self._fresh:
            self._refill()
        return self._broker.url_for(self._fresh.pop())

    def give_back(self, url: str) -> None:
        self._used.append(url.rpartition("/")[2])

    def _refill(self) -> None:
        names = [f"test-{number}" for number in itertools.islice(self._numbers, BATCH)]
        self._broker.ctl(
            "eval",
            f'[ok = rabbit_vhost:delete(N, <<"test">>) || N <- {_binaries(self._used)}],'
            "[begin"
            '  ok = rabbit_vhost:add(N, <<"test">>),'
            "  ok = rabbit_auth_backend_internal:set_permissions("
            '    <<"guest">>, N, <<".*">>, <<".*">>, <<".*">>, <<"test">>)'
            f" end || N <- {_binaries(names)}].",
        )
        self._used.clear()
        self._fresh = names


class OneVirtualHost:
    """The one virtual host of a broker that is not ours; nothing there is removed."""

    def __init__(self, url: str) -> None:
        self._url = url

    def take(self) -> str:
        return self._url

    def give_back(self, url: str) -> None:
        assert url == self._url


def _binaries(names: list[str]) -> str:
    return "[" + ",".join(f'<<"{name}">>' for name in names) + "]"
